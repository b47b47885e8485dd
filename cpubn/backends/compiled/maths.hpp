// The formulas of maths/algebra.py and elementary.py over lanes: the same operations in the same order,
// so the same bits. L is Lanes<float> or Lanes<double>; the algebra of channels is Lanes<double>, 16 channels at a time.
#pragma once
#include "lanes.hpp"

namespace cpubn {
typedef Lanes<double> Channels;

// algebra.py

struct Pair { Channels high, low; };

WORD Channels magnitude(const Channels &a) { return select(a < Channels(0.0), -a, a); }

// (s, e): s = fl(a + b) and s + e = a + b exactly.
WORD Pair two_sum(const Channels &a, const Channels &b) {
    Channels s = a + b, t = s - a;
    Pair r = {s, (a - (s - t)) + (b - t)};
    return r;
}

WORD Channels rstd(const Channels &var, const Channels &eps) { return Channels(1.0) / sqrt(var + eps); }

WORD Mask<double> outside(const Channels &value, double low, double high) {
    Channels m = magnitude(value);
    return ((value < Channels(0.0)) | (value > Channels(0.0))) & ((m < Channels(low)) | (m >= Channels(high)));
}

static const double LARGE = 0x1p100, TINY = 0x1p-126;

WORD Mask<double> forward_is_wide(const Channels &centre, const Channels &scale, const Channels &shift) {
    return (magnitude(centre) >= Channels(LARGE)) | (magnitude(shift) >= Channels(LARGE)) | outside(scale, TINY, LARGE);
}

WORD Mask<double> backward_is_wide(const Channels &centre, const Channels &r, const Channels &s, const Channels &k,
                                   const Channels &scale) {
    return (magnitude(centre) >= Channels(LARGE)) | outside(r, TINY, LARGE) | outside(scale, TINY, LARGE) |
           outside(s, 0x1p-100, 0x1p64) | outside(k, 0x1p-100, LARGE);
}

// elementary.py

template <typename L> struct Element;
template <typename T> struct Element<Lanes<T>> { typedef T type; };
#define REAL typename Element<L>::type
template <typename T> struct Constants;
template <> struct Constants<float> {
    static constexpr float exp_low = -110, exp_high = 100, rounder = 1.5f * 0x1p23f, bias = 127;
    static constexpr float exp_p[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                      4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    static constexpr float log1p_r[] = {2.9871812e-1f, 3.9977540e-1f, 6.6666776e-1f};
    static constexpr float tanh_p[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f,
                                       -3.33332819422e-1f};
    static constexpr float tanh_q[] = {1};
    static constexpr float erf_p[] = {7.85385358e-5f, -8.01019125e-4f, 5.18832741e-3f, -2.68538118e-2f,
                                      1.12835851e-1f, -3.76126258e-1f, 1.28379166e-1f};
    static constexpr float erfc_p[] = {-3.88892045e-4f, 6.00522523e-3f, -4.09986887e-2f, 1.64135122e-1f,
                                       -4.31682068e-1f, 7.92597198e-1f, -1.04821191e0f, 9.86127553e-1f};
    static constexpr float erfc_q[] = {1};
};
template <> struct Constants<double> {
    static constexpr double exp_low = -760, exp_high = 720, rounder = 1.5 * 0x1p52, bias = 1023;
    static constexpr double exp_p[] = {// 1 / 13!, ..., 1 / 2!
                                       1.6059043836821613e-10, 2.08767569878681e-9, 2.505210838544172e-8,
                                       2.755731922398589e-7, 2.7557319223985893e-6, 2.48015873015873e-5,
                                       1.984126984126984e-4, 1.388888888888889e-3, 8.333333333333333e-3,
                                       4.1666666666666664e-2, 1.6666666666666666e-1, 0.5};
    static constexpr double log1p_r[] = {1.4796025345457742e-1, 1.5314044418196507e-1, 1.8183564502621133e-1,
                                         2.2222198571214585e-1, 2.857142874238973e-1,  3.999999999941477e-1,
                                         6.666666666666734e-1};
    static constexpr double tanh_p[] = {-9.64399179425052238628e-1, -9.92877231001918586564e1,
                                        -1.61468768441708447952e3};
    static constexpr double tanh_q[] = {1, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3};
    // 2 / sqrt(pi) * (-1)**n / (n! * (2 * n + 1)) for n from 18 to 1, and 2 / sqrt(pi) - 1
    static constexpr double erf_p[] = {4.763348040515068e-18,  -9.063970842808673e-17, 1.6342614095367152e-15,
                                       -2.7835162072109212e-14, 4.4632242632864775e-13, -6.7113668551641105e-12,
                                       9.422759064650411e-11,  -1.2290555301717926e-9, 1.4807192815879218e-8,
                                       -1.6365844691234924e-7, 1.6462114365889246e-6,  -1.492565035840625e-5,
                                       1.2055332981789664e-4,  -8.548327023450852e-4,  5.223977625442188e-3,
                                       -2.6866170645131252e-2, 1.1283791670955126e-1,  -3.7612638903183754e-1,
                                       1.28379167095512573896e-1};
    static constexpr double erfc_p[] = {2.46196981473530512524e-10, 5.64189564831068821977e-1, 7.46321056442269912687e0,
                                        4.86371970985681366614e1,   1.96520832956077098242e2,  5.26445194995477358631e2,
                                        9.34528527171957607540e2,   1.02755188689515710272e3,  5.57535335369399327526e2};
    static constexpr double erfc_q[] = {1,
                                        1.32281951154744992508e1, 8.67072140885989742329e1, 3.54937778887819891062e2,
                                        9.75708501743205489753e2, 1.82390916687909736289e3, 2.24633760818710981792e3,
                                        1.65666309194161350182e3, 5.57535340817727675546e2};
};
#define CONSTANT(name) Constants<REAL>::name

template <typename L, size_t n> WORD L polynomial(const L &x, const REAL (&c)[n]) {
    L p = c[0];
    for (size_t i = 1; i < n; i++) p = p * x + L(c[i]);
    return p;
}

template <typename L> WORD L number(double a) { return L((REAL)a); }
template <typename L> WORD L clipped(const L &z, const L &low, const L &high) { return min(max(z, low), high); }
template <typename L> WORD L minus_abs(const L &z) { return select(z > L(0), -z, z); }

template <typename L> struct Reduced { L k, p; };
template <typename L> WORD Reduced<L> reduced(const L &z) {
    L rounder = CONSTANT(rounder), k = (z * number<L>(1.4426950408889634) + rounder) - rounder;
    L r = (z - k * number<L>(0.693145751953125)) - k * number<L>(1.42860682030941723212e-6);
    return {k, (r * r) * polynomial(r, CONSTANT(exp_p)) + r};
}

template <typename L> WORD L exp(const L &z) {
    Reduced<L> of = reduced(clipped(z, L(CONSTANT(exp_low)), L(CONSTANT(exp_high))));
    L k = of.k, p = of.p + L(1), rounder = CONSTANT(rounder);
    L part = (k * number<L>(0.5) + rounder) - rounder, bias = rounder + L(CONSTANT(bias));
    return (p * power_of_two(part + bias)) * power_of_two((k - part) + bias);
}

template <typename L> WORD L expm1(const L &z) {
    Reduced<L> of = reduced(clipped(z, L(-40), L(0)));
    L scale = power_of_two(of.k + (L(CONSTANT(rounder)) + L(CONSTANT(bias))));
    return scale * of.p + (scale - L(1));
}

template <typename L> WORD L log1p(const L &z) {
    Mask<REAL> is_far = z > number<L>(0.41421356237309515);
    L zero = L(0), half = number<L>(0.5), f = select(is_far, (z - L(1)) * half, z);
    L s = f / (L(2) + f), h = (f * f) * half, square = s * s;
    L rest = s * (h + square * polynomial(square, CONSTANT(log1p_r)));
    L low = select(is_far, number<L>(1.42860682030941723212e-6), zero), high = select(is_far, number<L>(0.693145751953125), zero);
    return (f - (h - (rest + low))) + high;
}

template <typename L> WORD L tanh(const L &z) {
    L square = z * z, zero = L(0), one = L(1);
    L near = (z * square) * (polynomial(square, CONSTANT(tanh_p)) / polynomial(square, CONSTANT(tanh_q))) + z;
    near = select(square == zero, z, near);
    L size = -minus_abs(z), far = one - L(2) / (exp(size + size) + one);
    far = select(z < zero, -far, far);
    return select(size >= number<L>(0.625), far, near);
}

template <typename L> WORD L erf(const L &z) {
    L square = z * z, one = L(1), near = z * polynomial(square, CONSTANT(erf_p)) + z;
    L x = clipped(-minus_abs(z), one, L(8));
    L far = one - exp(-(x * x)) * (polynomial(x, CONSTANT(erfc_p)) / polynomial(x, CONSTANT(erfc_q)));
    far = select(z < L(0), -far, far);
    return select(square >= one, far, near);
}

// The lanes between two bounds, one of NaN being none, and those of NaN if `nan`.
LANE_WORD uint32_t inside(const Lanes<T> &y, double low, double high, bool nan) {
    uint32_t out = pack((y <= Lanes<T>((T)low)) | (y >= Lanes<T>((T)high)));
    return ~out & (nan ? ~0u : pack(y == y));
}
} // namespace cpubn
