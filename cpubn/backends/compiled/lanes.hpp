// Words: 32 float lanes or 16 double lanes, whatever vectors the CPU has. Kernels are written in these words alone, and
// backends/jit/lanes.py has the same ones for Numba. Each rounds as IEEE 754 says, lane by lane, and no compiler may
// contract two of them into one: so every instruction set gives the same bits.
#pragma once
#include "vectors.hpp"
#include <type_traits>

namespace cpubn {
struct half { uint16_t bits; };   // float16
struct bfloat { uint16_t bits; }; // bfloat16, the upper half of a float
struct mixed { uint32_t bits; };  // stands for samples whose type is told beside them

template <typename T> struct Native;
template <> struct Native<float> { typedef F V; typedef U B; enum { COUNT = 32, N = 32 / W }; };
template <> struct Native<double> { typedef D V; typedef U64 B; enum { COUNT = 16, N = W > 1 ? 32 / W : 16 }; };

#if defined(__GNUC__)
#define EACH(T) _Pragma("GCC unroll 32") for (int i = 0; i < Native<T>::N; i++)
#else
#define EACH(T) for (int i = 0; i < Native<T>::N; i++)
#endif
#define LANE_WORD template <typename T> WORD
#ifdef CYTHON_INLINE // what Cython calls inline is a wish elsewhere: GCC left a step of the sums a call, at half the speed
#undef CYTHON_INLINE
#define CYTHON_INLINE CPUBN_INLINE
#endif

// True or false in each lane.
template <typename T> struct Mask {
    typename Native<T>::B v[Native<T>::N];
    CPUBN_INLINE Mask operator&(const Mask &o) const { Mask r; EACH(T) r.v[i] = v[i] & o.v[i]; return r; }
    CPUBN_INLINE Mask operator|(const Mask &o) const { Mask r; EACH(T) r.v[i] = v[i] | o.v[i]; return r; }
};

template <typename T> struct Lanes {
    typedef typename Native<T>::V V;
    V v[Native<T>::N];
    Lanes() = default;
    CPUBN_INLINE Lanes(T a) { EACH(T) v[i] = all(a); }
    CPUBN_INLINE Lanes operator+(const Lanes &o) const { Lanes r; EACH(T) r.v[i] = v[i] + o.v[i]; return r; }
    CPUBN_INLINE Lanes operator-(const Lanes &o) const { Lanes r; EACH(T) r.v[i] = v[i] - o.v[i]; return r; }
    CPUBN_INLINE Lanes operator*(const Lanes &o) const { Lanes r; EACH(T) r.v[i] = v[i] * o.v[i]; return r; }
    CPUBN_INLINE Lanes operator/(const Lanes &o) const { Lanes r; EACH(T) r.v[i] = v[i] / o.v[i]; return r; }
    CPUBN_INLINE Lanes operator-() const { Lanes r; EACH(T) r.v[i] = -v[i]; return r; }
    CPUBN_INLINE Mask<T> operator<(const Lanes &o) const { Mask<T> r; EACH(T) r.v[i] = mask(v[i] < o.v[i], V()); return r; }
    CPUBN_INLINE Mask<T> operator<=(const Lanes &o) const { Mask<T> r; EACH(T) r.v[i] = mask(v[i] <= o.v[i], V()); return r; }
    CPUBN_INLINE Mask<T> operator==(const Lanes &o) const { Mask<T> r; EACH(T) r.v[i] = mask(v[i] == o.v[i], V()); return r; }
    CPUBN_INLINE Mask<T> operator>(const Lanes &o) const { return o < *this; }
    CPUBN_INLINE Mask<T> operator>=(const Lanes &o) const { return o <= *this; }
};

// The lanes that samples of a type are computed in.
template <typename S> struct LaneOf { typedef Lanes<float> type; };
template <> struct LaneOf<double> { typedef Lanes<double> type; };
template <typename S> using Lane = typename LaneOf<S>::type;

// A load of samples of any type is lanes.
WORD Lanes<double> load(const double *p) { Lanes<double> r; EACH(double) r.v[i] = get(p + 16 / Native<double>::N * i); return r; }
WORD Lanes<float> load(const float *p) { Lanes<float> r; EACH(float) r.v[i] = get(p + W * i); return r; }
WORD Lanes<float> load(const half *p) { Lanes<float> r; EACH(float) r.v[i] = of_half(&p->bits + W * i); return r; }
WORD Lanes<float> load(const bfloat *p) { Lanes<float> r; EACH(float) r.v[i] = bits<F>(longer(&p->bits + W * i) << 16); return r; }
template <typename I> WORD Lanes<float> load(const I *p) { Lanes<float> r; EACH(float) r.v[i] = whole(p + W * i); return r; }

// A store of the lowest 8 bits of each lane.
WORD void store(uint8_t *p, const Lanes<float> &a) { EACH(float) put_bytes(p + W * i, bits<U>(a.v[i])); }
// A store rounds to nearest, ties to even; a stream is a store past the cache, to an address that is a multiple of 64.
WORD H rounded(const half *, F a) { return to_half(a); }
LONG_WORD H rounded(const bfloat *, F a) {
    U b = bits<U>(a), nearest = (b + 0x7fffu + (b >> 16 & 1u)) >> 16;
    return shorter(bits<U>(pick(mask(a == a, F()), bits<F>(nearest), bits<F>(b >> 16 | 0x40u))));
}
WORD void store(double *p, const Lanes<double> &a) { EACH(double) put(p + 16 / Native<double>::N * i, a.v[i]); }
WORD void store(float *p, const Lanes<float> &a) { EACH(float) put(p + W * i, a.v[i]); }
template <typename S> WORD void store(S *p, const Lanes<float> &a) { EACH(float) put(&p->bits + W * i, rounded(p, a.v[i])); }
WORD void stream(double *p, const Lanes<double> &a) { EACH(double) put_past(p + 16 / Native<double>::N * i, a.v[i]); }
WORD void stream(float *p, const Lanes<float> &a) { EACH(float) put_past(p + W * i, a.v[i]); }
template <typename S> WORD void stream(S *p, const Lanes<float> &a) { EACH(float) put_past(&p->bits + W * i, rounded(p, a.v[i])); }

// a + b by the multiplier, which is idle in sums: where additions alone bind, 1.2 times as fast.
WORD Lanes<float> plus(const Lanes<float> &a, const Lanes<float> &b) {
#if defined(__FMA__) || defined(__aarch64__)
    Lanes<float> r; EACH(float) r.v[i] = multiply_add(a.v[i], all(1.0f), b.v[i]); return r;
#else
    return a + b;
#endif
}
LANE_WORD Lanes<T> plus(const Lanes<T> &a, const Lanes<T> &b) { return a + b; }
// a * b + c, rounded once.
LANE_WORD Lanes<T> fma(const Lanes<T> &a, const Lanes<T> &b, const Lanes<T> &c) {
    Lanes<T> r; EACH(T) r.v[i] = multiply_add(a.v[i], b.v[i], c.v[i]); return r;
}
LANE_WORD Lanes<T> sqrt(const Lanes<T> &a) { Lanes<T> r; EACH(T) r.v[i] = root(a.v[i]); return r; }
// NaN in z stays, and so does -0.0 beside 0.0; NaN as a bound is none.
LANE_WORD Lanes<T> max(const Lanes<T> &z, const Lanes<T> &low) { Lanes<T> r; EACH(T) r.v[i] = at_least(z.v[i], low.v[i]); return r; }
LANE_WORD Lanes<T> min(const Lanes<T> &z, const Lanes<T> &high) { Lanes<T> r; EACH(T) r.v[i] = at_most(z.v[i], high.v[i]); return r; }
LANE_WORD Lanes<T> select(const Mask<T> &c, const Lanes<T> &yes, const Lanes<T> &no) {
    Lanes<T> r; EACH(T) r.v[i] = pick(c.v[i], yes.v[i], no.v[i]); return r;
}

// Floats as doubles, the first 16 or the last 16 of them, and back.
WORD Lanes<double> widen(const Lanes<float> &a, int last) {
    Lanes<double> r;
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__aarch64__))
    _Pragma("GCC unroll 32") for (int i = 0; i < 16 / W; i++) {
        r.v[2 * i] = low(a.v[i + 16 / W * last]);
        r.v[2 * i + 1] = high(a.v[i + 16 / W * last]);
    }
#else
    EACH(double) r.v[i] = a.v[i + 16 * last];
#endif
    return r;
}
WORD Lanes<float> narrow(const Lanes<double> &first, const Lanes<double> &last) {
    Lanes<float> r;
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__aarch64__))
    _Pragma("GCC unroll 32") for (int i = 0; i < 16 / W; i++) {
        r.v[i] = join(first.v[2 * i], first.v[2 * i + 1]);
        r.v[i + 16 / W] = join(last.v[2 * i], last.v[2 * i + 1]);
    }
#else
    EACH(double) { r.v[i] = (float)first.v[i]; r.v[i + 16] = (float)last.v[i]; }
#endif
    return r;
}

// Doubles rounded to floats.
WORD Lanes<double> as_single(const Lanes<double> &a) { return widen(narrow(a, a), 0); }

// Only the first n lanes: of a load, the others are 0.
WORD ptrdiff_t from_to(ptrdiff_t n, int i) { // how many of the first n stand in vector i
    const ptrdiff_t lanes = 16 / Native<double>::N, left = n - lanes * i;
    return left < 0 ? 0 : left < lanes ? left : lanes;
}
static CALLED Lanes<double> load_first(const double *p, ptrdiff_t n) { // inlined, these two took 0.1 MB
    Lanes<double> r; EACH(double) r.v[i] = get_first(p + 16 / Native<double>::N * i, from_to(n, i)); return r;
}
static CALLED void store_first(double *p, const Lanes<double> &a, ptrdiff_t n) {
    EACH(double) put_first(p + 16 / Native<double>::N * i, a.v[i], from_to(n, i));
}
WORD Lanes<double> some(const double *p, ptrdiff_t n) { return n < 16 ? load_first(p, n) : load(p); }
WORD void store_some(double *p, const Lanes<double> &a, ptrdiff_t n) { if (n < 16) store_first(p, a, n); else store(p, a); }

// Add lanes to as many sums in memory, which are doubles.
WORD void add_to(double *sums, const Lanes<double> &a) { store(sums, load(sums) + a); }
WORD void add_to(double *sums, const Lanes<float> &a) {
    store(sums, load(sums) + widen(a, 0));
    store(sums + 16, load(sums + 16) + widen(a, 1));
}

// A sum in each lane: a few additions are pending in the type that is computed in, those before them went into doubles.
template <typename T> struct Sum {
    Lanes<T> pending;
    Lanes<double> total[sizeof(double) / sizeof(T)];
    Sum() = default;
    CPUBN_INLINE Sum(double a) : pending((T)a) { for (auto &part : total) part = Lanes<double>(a); }
    CPUBN_INLINE void put_away() { add(pending); pending = Lanes<T>((T)0); }
    CPUBN_INLINE void add(const Lanes<double> &a) { total[0] = total[0] + a; }
    CPUBN_INLINE void add(const Lanes<float> &a) { total[0] = total[0] + widen(a, 0); total[1] = total[1] + widen(a, 1); }
    CPUBN_INLINE void load_total(const double *p) { for (auto &part : total) { part = load(p); p += 16; } }
    CPUBN_INLINE void store_total(double *p) const { for (const auto &part : total) { store(p, part); p += 16; } }
};
template <typename S> using SumOf = Sum<typename std::conditional<std::is_same<S, double>::value, double, float>::type>;
// As 16 doubles, the upper 16 of 32 onto the lower.
WORD Lanes<double> sixteen(const Sum<double> &s) { return s.total[0]; }
WORD Lanes<double> sixteen(const Sum<float> &s) { return s.total[0] + s.total[1]; }

// The sum of 16 lanes: the upper half onto the lower, again and again.
WORD D fold_vectors(Lanes<double> a) {
    for (int n = Native<double>::N / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) a.v[i] = a.v[i] + a.v[i + n];
    return a.v[0];
}
WORD double fold(const Lanes<double> &a) {
    constexpr int L = 16 / Native<double>::N;
    double t[L];
    put(t, fold_vectors(a));
    for (int n = L / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) t[i] += t[i + n];
    return t[0];
}
// The same of 16 rows of 16 doubles: lane i is the sum of row i.
WORD Lanes<double> fold_rows(const double *rows) {
    constexpr int L = 16 / Native<double>::N;
    Lanes<double> r;
    EACH(double) {
        D a[L];
        for (int k = 0; k < L; k++) a[k] = fold_vectors(load(rows + 16 * (L * i + k)));
        r.v[i] = sums_of(a);
    }
    return r;
}

// 0 in all lanes but the last n.
static const uint32_t LAST[64] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u,
    ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
LANE_WORD Lanes<T> last(const Lanes<T> &a, ptrdiff_t n) {
    Lanes<T> r;
    EACH(T) {
        typename Native<T>::B kept;
        memcpy(&kept, (const char *)(LAST + 32) - sizeof(T) * (Native<T>::COUNT - n) + sizeof kept * i, sizeof kept);
        r.v[i] = bits<typename Native<T>::V>(bits<typename Native<T>::B>(a.v[i]) & kept);
    }
    return r;
}

// One bit a lane, the first lane in the lowest: which lanes are true, and back.
LANE_WORD uint32_t pack(const Mask<T> &c) {
    uint32_t r = 0;
    EACH(T) r |= top_bits(c.v[i]) << Native<T>::COUNT / Native<T>::N * i;
    return r;
}
static const uint32_t ONE[16] = {1u, 1u << 1, 1u << 2, 1u << 3, 1u << 4, 1u << 5, 1u << 6, 1u << 7,
                                 1u << 8, 1u << 9, 1u << 10, 1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15};
static const uint64_t ONE_64[8] = {1u, 1u << 1, 1u << 2, 1u << 3, 1u << 4, 1u << 5, 1u << 6, 1u << 7};
LANE_WORD Mask<T> unpack(uint32_t packed) {
    typename Native<T>::B one;
    memcpy(&one, sizeof(T) == 4 ? (const void *)ONE : (const void *)ONE_64, sizeof one);
    Mask<T> r;
    EACH(T) r.v[i] = mask((one & (packed >> Native<T>::COUNT / Native<T>::N * i)) == one, typename Native<T>::V());
    return r;
}

// `yes` in the lanes whose bit is set, `no` in the others.
LANE_WORD Lanes<T> signed_by(uint32_t packed, const Lanes<T> &yes, const Lanes<T> &no) { return select(unpack<T>(packed), yes, no); }

// to <- lanes of which the first n are one number, and the others another.
template <typename T> LONG_WORD void put_two(T *to, double first, double other, ptrdiff_t n) {
    store(to, signed_by((uint32_t)(((uint64_t)1 << n) - 1), Lanes<T>((T)first), Lanes<T>((T)other)));
}

// 2**k from k + bias + 1.5 * 2**23 (2**52 in double), whose lowest bits are those of an exponent.
WORD Lanes<float> power_of_two(const Lanes<float> &biased) {
    Lanes<float> r; EACH(float) r.v[i] = bits<F>(bits<U>(biased.v[i]) << 23); return r;
}
WORD Lanes<double> power_of_two(const Lanes<double> &biased) {
    Lanes<double> r; EACH(double) r.v[i] = bits<D>(bits<U64>(biased.v[i]) << 52); return r;
}

// Ask for the cache line of p, which need not exist, in the second level.
WORD void prefetch(const void *p) {
#if defined(__GNUC__)
    __builtin_prefetch(p, 0, 2);
#elif defined(_M_X64)
    _mm_prefetch((const char *)p, _MM_HINT_T1);
#endif
}
} // namespace cpubn
