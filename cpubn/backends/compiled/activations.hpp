// The table of cpubn/maths/activations.py over lanes: formulas by the same names, with the same bits, and their codes.
#pragma once
#include "maths.hpp"

namespace cpubn {
template <typename L> WORD L clip(const L &z, const L &low, const L &high) { return clipped(z, low, high); }
template <typename L> WORD L clip_gradient(const L &z, const L &low, const L &high) {
    return select((z <= low) | (z >= high), L(0), L(1));
}

template <typename L> WORD L leaky_relu(const L &z, const L &low, const L &) { return select(z > L(0), z, z * low); }
template <typename L> WORD L leaky_relu_gradient(const L &z, const L &low, const L &) {
    return select(z > L(0), L(1), low);
}
template <typename L> WORD L leaky_relu_of_output(const L &y, const L &low, const L &high) {
    return leaky_relu_gradient(y, low, high);
}

template <typename L> WORD L hardswish(const L &z, const L &, const L &) {
    return z * (clipped(z + L(3), L(0), L(6)) / L(6));
}
template <typename L> WORD L hardswish_gradient(const L &z, const L &, const L &) {
    L inner = select(z < L(3), z / L(3) + number<L>(0.5), L(1));
    return select(z <= L(-3), L(0), inner);
}

template <typename L> WORD L sigmoid(const L &z, const L &, const L &) {
    L e = exp(minus_abs(z));
    return select(z < L(0), e, L(1)) / (L(1) + e);
}
template <typename L> WORD L sigmoid_gradient(const L &z, const L &, const L &) {
    L e = exp(minus_abs(z)), denominator = L(1) + e;
    return e / (denominator * denominator);
}
template <typename L> WORD L sigmoid_of_output(const L &y, const L &, const L &) { return y * (L(1) - y); }

template <typename L> WORD L silu(const L &z, const L &low, const L &high) { return z * sigmoid(z, low, high); }
template <typename L> WORD L silu_gradient(const L &z, const L &low, const L &high) {
    return sigmoid(z, low, high) + z * sigmoid_gradient(z, low, high);
}

template <typename L> WORD L normal_distribution(const L &z) {
    return number<L>(0.5) * (L(1) + erf(z * number<L>(0.7071067811865476)));
}
template <typename L> WORD L gelu(const L &z, const L &, const L &) { return z * normal_distribution(z); }
template <typename L> WORD L gelu_gradient(const L &z, const L &, const L &) {
    L density = number<L>(0.3989422804014327) * exp(number<L>(-0.5) * (z * z));
    return normal_distribution(z) + z * density;
}

template <typename L> WORD L tanh(const L &z, const L &, const L &) { return tanh(z); }
template <typename L> WORD L tanh_gradient(const L &z, const L &low, const L &high) {
    return L(4) * sigmoid_gradient(z + z, low, high);
}
template <typename L> WORD L tanh_of_output(const L &y, const L &, const L &) { return L(1) - y * y; }

template <typename L> WORD L softplus(const L &z, const L &, const L &) {
    return select(z > L(20), z, max(z, L(0)) + log1p(exp(minus_abs(z))));
}
template <typename L> WORD L softplus_gradient(const L &z, const L &low, const L &high) {
    return select(z > L(20), L(1), sigmoid(z, low, high));
}

template <typename L> struct Quotient { L top, bottom, part; };
template <typename L> WORD Quotient<L> tanh_of_softplus(const L &z) {
    auto is_below = z < L(0);
    L e = exp(minus_abs(z)), top = select(is_below, e * (e + L(2)), (e + e) + L(1));
    return {top, top + select(is_below, L(2), (e + e) * e), select(is_below, e, e * e) * (e + L(1))};
}
template <typename L> WORD L mish(const L &z, const L &, const L &) {
    Quotient<L> q = tanh_of_softplus(z);
    return z * (q.top / q.bottom);
}
template <typename L> WORD L mish_gradient(const L &z, const L &, const L &) {
    Quotient<L> q = tanh_of_softplus(z);
    return q.top / q.bottom + z * (L(4) * q.part / (q.bottom * q.bottom));
}

template <typename L> WORD L elu(const L &z, const L &low, const L &) { return select(z < L(0), low * expm1(z), z); }
template <typename L> WORD L elu_gradient(const L &z, const L &low, const L &) {
    return select(z > L(0), L(1), low * exp(z));
}

// The names of the table in its order, which gives their codes: first those that are clip, by their own low and high; and
// those with a derivative of the output. What is said here is compared with Python's table before any kernel is used.
#define CLIPS(X) X(relu) X(relu6) X(clip)
#define OTHERS(X) X(leaky_relu) X(hardswish) X(silu) X(gelu) X(sigmoid) X(tanh) X(softplus) X(mish) X(elu)
#define OTHERS_BY_OUTPUT(X) X(leaky_relu) X(sigmoid) X(tanh)

#define CODE(name) CODE_OF_##name,
#define NAME(name) #name " "
enum { NONE, CLIPS(CODE) OTHERS(CODE) CODES };
static const char *const NAMES = CLIPS(NAME) OTHERS(NAME), *const NAMES_OF_CLIPS = CLIPS(NAME),
                  *const NAMES_BY_OUTPUT = CLIPS(NAME) OTHERS_BY_OUTPUT(NAME);

// What `activate` and `derive` take for a code, and `derive` for one whose z is the output; NONE for what is not there.
#define SAME(name) case CODE_OF_##name: return code;
#define OWN(name) case CODE_OF_##name: return CODES + code;
WORD int formula_of(int code, int by_output) {
    if (!by_output) return code > NONE && code < CODES ? code : NONE;
    switch (code) { CLIPS(SAME) OTHERS_BY_OUTPUT(OWN) }
    return NONE;
}

// Each code's function is called, not inlined into every pass: but for clips, its cost of 2 ns for 32 lanes does not show.
#define FUNCTION(name) case CODE_OF_##name: z = name(z, L((T)low), L((T)high)); break;
#define GRADIENT(name) case CODE_OF_##name: z = name##_gradient(z, L((T)low), L((T)high)); break;
#define BY_OUTPUT(name) case CODES + CODE_OF_##name: z = name##_of_output(z, L((T)low), L((T)high)); break;
template <typename T> static CALLED void activate_called(int code, Lanes<T> &z, double low, double high) {
    typedef Lanes<T> L;
    switch (code) { OTHERS(FUNCTION) }
}
template <typename T> static CALLED void derive_called(int code, Lanes<T> &z, double low, double high) {
    typedef Lanes<T> L;
    switch (code) { OTHERS(GRADIENT) OTHERS_BY_OUTPUT(BY_OUTPUT) }
}
#undef CODE
#undef NAME
#undef SAME
#undef OWN
#undef FUNCTION
#undef GRADIENT
#undef BY_OUTPUT

// f(z) and f'(z) by what `formula_of` gave; a bound of NaN bounds nothing.
LANE_WORD Lanes<T> activate(int code, const Lanes<T> &z, double low, double high) {
    if (code <= CODE_OF_clip) return clip(z, Lanes<T>((T)low), Lanes<T>((T)high));
    Lanes<T> r = z;
    activate_called(code, r, low, high);
    return r;
}
LANE_WORD Lanes<T> derive(int code, const Lanes<T> &z, double low, double high) {
    if (code <= CODE_OF_clip) return clip_gradient(z, Lanes<T>((T)low), Lanes<T>((T)high));
    Lanes<T> r = z;
    derive_called(code, r, low, high);
    return r;
}
} // namespace cpubn
