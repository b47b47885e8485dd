// The CPU's own vectors, of which lanes.hpp makes the words that kernels are written in: the one file with intrinsics.
//
// A new instruction set is one more `#elif`: its vectors, and what the compiler has no operators for. Vectors of another
// width than the CPU's (64 bytes under AVX2) took 3 to 5 times as long, and __builtin_convertvector 1.25 to 1.5 times.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(_MSC_VER)
#pragma fp_contract(off) // before Visual Studio 2022, /fp:precise contracts a * b + c
#define CPUBN_INLINE __forceinline
#define CALLED __declspec(noinline)
#else
#define CPUBN_INLINE inline __attribute__((always_inline))
#define CALLED __attribute__((noinline, unused)) // not every extension calls all
#define CPUBN_VECTOR(type, bytes) __attribute__((vector_size(bytes))) type
#endif
#define WORD static CPUBN_INLINE
#if defined(__AVX2__) || defined(__aarch64__) || defined(_M_ARM64)
#define LONG_WORD WORD // called, one takes as long as half a run of 49 elements
#else
#define LONG_WORD static CALLED // inlined, two of them take 0.2 MB
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace cpubn {

// F: W floats; D: W / 2 doubles, or one where W is 1; U, U64: as many integers; H: W numbers of 16 bits. `low` and `high`
// widen half a vector, `join` narrows two; `at_least(z, low)` is low where z < low and else z, so that NaN stays, as it
// does in `at_most`; `get_first` and `put_first` have the first n lanes alone, 0 in the others; `put_past` stores past the
// cache, at a multiple of the vector's size; `whole` reads integers; `sums_of` adds up the lanes of each of as many vectors
// as one has lanes, the upper half onto the lower, again and again.
#if defined(__AVX512F__) && defined(__GNUC__)
constexpr int W = 16;
typedef __m512 F; typedef __m512d D; typedef __m256i H; typedef CPUBN_VECTOR(uint32_t, 64) U; typedef CPUBN_VECTOR(uint64_t, 64) U64;
WORD F get(const float *p) { return _mm512_loadu_ps(p); }
WORD D get(const double *p) { return _mm512_loadu_pd(p); }
WORD D get_first(const double *p, ptrdiff_t n) { return _mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p); }
WORD void put_first(double *p, D v, ptrdiff_t n) { _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), v); }
WORD void put(float *p, F v) { _mm512_storeu_ps(p, v); }
WORD void put(double *p, D v) { _mm512_storeu_pd(p, v); }
WORD void put(uint16_t *p, H v) { _mm256_storeu_si256((__m256i *)p, v); }
WORD void put_past(float *p, F v) { _mm512_stream_ps(p, v); }
WORD void put_past(double *p, D v) { _mm512_stream_pd(p, v); }
WORD void put_past(uint16_t *p, H v) { _mm256_stream_si256((__m256i *)p, v); }
WORD F all(float a) { return _mm512_set1_ps(a); }
WORD D all(double a) { return _mm512_set1_pd(a); }
WORD F root(F a) { return _mm512_sqrt_ps(a); }
WORD D root(D a) { return _mm512_sqrt_pd(a); }
WORD F at_least(F z, F low) { return _mm512_max_ps(low, z); }
WORD D at_least(D z, D low) { return _mm512_max_pd(low, z); }
WORD F at_most(F z, F high) { return _mm512_min_ps(high, z); }
WORD D at_most(D z, D high) { return _mm512_min_pd(high, z); }
WORD F multiply_add(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
WORD D multiply_add(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
WORD D low(F a) { return _mm512_cvtps_pd(_mm512_castps512_ps256(a)); }
WORD D high(F a) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1)); }
WORD F join(D a, D b) { return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(a)), _mm512_cvtpd_ps(b), 1); }
WORD F whole(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p))); }
WORD F whole(const int8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p))); }
WORD F whole(const int16_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p))); }
WORD U longer(const uint16_t *p) { return (U)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
WORD H shorter(U a) { return _mm512_cvtepi32_epi16((__m512i)a); }
WORD F of_integers(U a) { return _mm512_cvtepi32_ps((__m512i)a); }
WORD F keep(F a, const uint8_t *p) { const __m128i b = _mm_loadu_si128((const __m128i *)p); return _mm512_maskz_mov_ps(_mm_test_epi8_mask(b, b), a); }
#define CPUBN_KEEP // 0 where a byte is 0
WORD void put_bytes(uint8_t *p, U a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8((__m512i)a)); }
WORD F of_half(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
WORD H to_half(F a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
WORD uint32_t top_bits(U a) { return _mm512_movepi32_mask((__m512i)a); }
WORD uint32_t top_bits(U64 a) { return _mm512_movepi64_mask((__m512i)a); }
WORD D halves(D a, D b) { return _mm512_shuffle_f64x2(a, b, 0x44) + _mm512_shuffle_f64x2(a, b, 0xee); }
WORD D quarters(D a, D b) { return _mm512_shuffle_f64x2(a, b, 0x88) + _mm512_shuffle_f64x2(a, b, 0xdd); }
WORD D sums_of(const D *a) {
    D first = quarters(halves(a[0], a[2]), halves(a[4], a[6])), second = quarters(halves(a[1], a[3]), halves(a[5], a[7]));
    return _mm512_unpacklo_pd(first, second) + _mm512_unpackhi_pd(first, second);
}
#define CPUBN_HALF
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__) && defined(__GNUC__)
constexpr int W = 8;
typedef __m256 F; typedef __m256d D; typedef __m128i H; typedef CPUBN_VECTOR(uint32_t, 32) U; typedef CPUBN_VECTOR(uint64_t, 32) U64;
WORD F get(const float *p) { return _mm256_loadu_ps(p); }
WORD D get(const double *p) { return _mm256_loadu_pd(p); }
WORD __m256i first_lanes(ptrdiff_t n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
WORD D get_first(const double *p, ptrdiff_t n) { return _mm256_maskload_pd(p, first_lanes(n)); }
WORD void put_first(double *p, D v, ptrdiff_t n) { _mm256_maskstore_pd(p, first_lanes(n), v); }
WORD void put(float *p, F v) { _mm256_storeu_ps(p, v); }
WORD void put(double *p, D v) { _mm256_storeu_pd(p, v); }
WORD void put(uint16_t *p, H v) { _mm_storeu_si128((__m128i *)p, v); }
WORD void put_past(float *p, F v) { _mm256_stream_ps(p, v); }
WORD void put_past(double *p, D v) { _mm256_stream_pd(p, v); }
WORD void put_past(uint16_t *p, H v) { _mm_stream_si128((__m128i *)p, v); }
WORD F all(float a) { return _mm256_set1_ps(a); }
WORD D all(double a) { return _mm256_set1_pd(a); }
WORD F root(F a) { return _mm256_sqrt_ps(a); }
WORD D root(D a) { return _mm256_sqrt_pd(a); }
WORD F at_least(F z, F low) { return _mm256_max_ps(low, z); }
WORD D at_least(D z, D low) { return _mm256_max_pd(low, z); }
WORD F at_most(F z, F high) { return _mm256_min_ps(high, z); }
WORD D at_most(D z, D high) { return _mm256_min_pd(high, z); }
WORD F multiply_add(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
WORD D multiply_add(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }
WORD D low(F a) { return _mm256_cvtps_pd(_mm256_castps256_ps128(a)); }
WORD D high(F a) { return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)); }
WORD F join(D a, D b) { return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(a)), _mm256_cvtpd_ps(b), 1); }
WORD F whole(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
WORD F whole(const int8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))); }
WORD F whole(const int16_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p))); }
WORD U longer(const uint16_t *p) { return (U)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)); }
WORD H shorter(U a) { return _mm_packus_epi32(_mm256_castsi256_si128((__m256i)a), _mm256_extracti128_si256((__m256i)a, 1)); }
WORD F of_integers(U a) { return _mm256_cvtepi32_ps((__m256i)a); }
WORD F keep(F a, const uint8_t *p) { const U b = (U)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); return (F)((U)a & (U)(b != 0)); }
#define CPUBN_KEEP
WORD void put_bytes(uint8_t *p, U a) { const H b = shorter(a & 0xffu); _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(b, b)); }
WORD F of_half(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
WORD H to_half(F a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
WORD uint32_t top_bits(U a) { return _mm256_movemask_ps((__m256)a); }
WORD uint32_t top_bits(U64 a) { return _mm256_movemask_pd((__m256d)a); }
WORD D halves(D a, D b) { return _mm256_permute2f128_pd(a, b, 0x20) + _mm256_permute2f128_pd(a, b, 0x31); }
WORD D sums_of(const D *a) {
    D first = halves(a[0], a[2]), second = halves(a[1], a[3]);
    return _mm256_unpacklo_pd(first, second) + _mm256_unpackhi_pd(first, second);
}
#define CPUBN_HALF
#elif defined(__x86_64__) && defined(__GNUC__)
constexpr int W = 4;
typedef __m128 F; typedef __m128d D; typedef __m128i H; typedef CPUBN_VECTOR(uint32_t, 16) U; typedef CPUBN_VECTOR(uint64_t, 16) U64;
WORD F get(const float *p) { return _mm_loadu_ps(p); }
WORD D get(const double *p) { return _mm_loadu_pd(p); }
WORD D get_first(const double *p, ptrdiff_t n) { return n > 1 ? get(p) : n > 0 ? _mm_load_sd(p) : _mm_setzero_pd(); }
WORD void put(float *p, F v) { _mm_storeu_ps(p, v); }
WORD void put(double *p, D v) { _mm_storeu_pd(p, v); }
WORD void put_first(double *p, D v, ptrdiff_t n) { if (n > 1) put(p, v); else if (n > 0) _mm_store_sd(p, v); }
WORD void put(uint16_t *p, H v) { _mm_storel_epi64((__m128i *)p, v); }
WORD void put_past(float *p, F v) { _mm_stream_ps(p, v); }
WORD void put_past(double *p, D v) { _mm_stream_pd(p, v); }
WORD void put_past(uint16_t *p, H v) { put(p, v); }
WORD F all(float a) { return _mm_set1_ps(a); }
WORD D all(double a) { return _mm_set1_pd(a); }
WORD F root(F a) { return _mm_sqrt_ps(a); }
WORD D root(D a) { return _mm_sqrt_pd(a); }
WORD F at_least(F z, F low) { return _mm_max_ps(low, z); }
WORD D at_least(D z, D low) { return _mm_max_pd(low, z); }
WORD F at_most(F z, F high) { return _mm_min_ps(high, z); }
WORD D at_most(D z, D high) { return _mm_min_pd(high, z); }
WORD D low(F a) { return _mm_cvtps_pd(a); }
WORD D high(F a) { return _mm_cvtps_pd(_mm_movehl_ps(a, a)); }
WORD F join(D a, D b) { return _mm_movelh_ps(_mm_cvtpd_ps(a), _mm_cvtpd_ps(b)); }
WORD __m128i bytes(const void *p) { int32_t b; memcpy(&b, p, 4); return _mm_cvtsi32_si128(b); }
WORD __m128i twice(__m128i a) { return _mm_unpacklo_epi8(a, a); }
WORD F whole(const uint8_t *p) { __m128i b = twice(bytes(p)); return _mm_cvtepi32_ps(_mm_srli_epi32(_mm_unpacklo_epi16(b, b), 24)); }
WORD F whole(const int8_t *p) { __m128i b = twice(bytes(p)); return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(b, b), 24)); }
WORD F whole(const int16_t *p) { __m128i h = _mm_loadl_epi64((const __m128i *)p); return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(h, h), 16)); }
WORD U longer(const uint16_t *p) { return (U)_mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i *)p), _mm_setzero_si128()); }
WORD H shorter(U a) { __m128i b = _mm_srai_epi32(_mm_slli_epi32((__m128i)a, 16), 16); return _mm_packs_epi32(b, b); }
WORD F of_integers(U a) { return _mm_cvtepi32_ps((__m128i)a); }
WORD void put_bytes(uint8_t *p, U a) {
    const H b = shorter(a & 0xffu);
    const int32_t four = _mm_cvtsi128_si32(_mm_packus_epi16(b, b));
    memcpy(p, &four, 4);
}
WORD uint32_t top_bits(U a) { return _mm_movemask_ps((__m128)a); }
WORD uint32_t top_bits(U64 a) { return _mm_movemask_pd((__m128d)a); }
WORD D sums_of(const D *a) { return _mm_unpacklo_pd(a[0], a[1]) + _mm_unpackhi_pd(a[0], a[1]); }
#elif defined(__aarch64__) && defined(__GNUC__)
constexpr int W = 4;
typedef float32x4_t F; typedef float64x2_t D; typedef uint16x4_t H; typedef uint32x4_t U; typedef uint64x2_t U64;
WORD F get(const float *p) { return vld1q_f32(p); }
WORD D get(const double *p) { return vld1q_f64(p); }
WORD D get_first(const double *p, ptrdiff_t n) { return n > 1 ? get(p) : n > 0 ? vsetq_lane_f64(*p, vdupq_n_f64(0), 0) : vdupq_n_f64(0); }
WORD void put(float *p, F v) { vst1q_f32(p, v); }
WORD void put(double *p, D v) { vst1q_f64(p, v); }
WORD void put_first(double *p, D v, ptrdiff_t n) { if (n > 1) put(p, v); else if (n > 0) vst1q_lane_f64(p, v, 0); }
WORD void put(uint16_t *p, H v) { vst1_u16(p, v); }
WORD void put_past(float *p, F v) { put(p, v); }
WORD void put_past(double *p, D v) { put(p, v); }
WORD void put_past(uint16_t *p, H v) { put(p, v); }
WORD F all(float a) { return vdupq_n_f32(a); }
WORD D all(double a) { return vdupq_n_f64(a); }
WORD F root(F a) { return vsqrtq_f32(a); }
WORD D root(D a) { return vsqrtq_f64(a); }
WORD F at_least(F z, F low) { return vbslq_f32(vcltq_f32(z, low), low, z); }
WORD D at_least(D z, D low) { return vbslq_f64(vcltq_f64(z, low), low, z); }
WORD F at_most(F z, F high) { return vbslq_f32(vcgtq_f32(z, high), high, z); }
WORD D at_most(D z, D high) { return vbslq_f64(vcgtq_f64(z, high), high, z); }
WORD F multiply_add(F a, F b, F c) { return vfmaq_f32(c, a, b); }
WORD D multiply_add(D a, D b, D c) { return vfmaq_f64(c, a, b); }
WORD D low(F a) { return vcvt_f64_f32(vget_low_f32(a)); }
WORD D high(F a) { return vcvt_high_f64_f32(a); }
WORD F join(D a, D b) { return vcvt_high_f32_f64(vcvt_f32_f64(a), b); }
WORD F whole(const uint8_t *p) { float t[4] = {(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; return vld1q_f32(t); }
WORD F whole(const int8_t *p) { float t[4] = {(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; return vld1q_f32(t); }
WORD F whole(const int16_t *p) { return vcvtq_f32_s32(vmovl_s16(vld1_s16(p))); }
WORD U longer(const uint16_t *p) { return vmovl_u16(vld1_u16(p)); }
WORD H shorter(U a) { return vmovn_u32(a); }
WORD F of_integers(U a) { return vcvtq_f32_s32((int32x4_t)a); }
WORD void put_bytes(uint8_t *p, U a) { const uint16x4_t b = vmovn_u32(a); vst1_lane_u32((uint32_t *)p, (uint32x2_t)vmovn_u16(vcombine_u16(b, b)), 0); }
WORD F of_half(const uint16_t *p) { return vcvt_f32_f16((float16x4_t)vld1_u16(p)); }
WORD H to_half(F a) { return (H)vcvt_f16_f32(a); }
WORD uint32_t top_bits(U a) { const U one = {1, 2, 4, 8}; return vaddvq_u32((a >> 31) * one); }
WORD uint32_t top_bits(U64 a) { return (uint32_t)(a[0] >> 63 | a[1] >> 63 << 1); }
WORD D sums_of(const D *a) { return vzip1q_f64(a[0], a[1]) + vzip2q_f64(a[0], a[1]); }
#define CPUBN_HALF
#else // any other CPU or compiler: vectors of one lane, of which the compiler makes longer ones if it can
constexpr int W = 1;
typedef float F; typedef double D; typedef uint16_t H; typedef uint32_t U; typedef uint64_t U64;
WORD F get(const float *p) { return *p; }
WORD D get(const double *p) { return *p; }
WORD D get_first(const double *p, ptrdiff_t n) { return n > 0 ? *p : 0.0; }
WORD void put(float *p, F v) { *p = v; }
WORD void put(double *p, D v) { *p = v; }
WORD void put_first(double *p, D v, ptrdiff_t n) { if (n > 0) *p = v; }
WORD void put(uint16_t *p, H v) { *p = v; }
WORD void put_past(float *p, F v) { *p = v; }
WORD void put_past(double *p, D v) { *p = v; }
WORD void put_past(uint16_t *p, H v) { *p = v; }
WORD F all(float a) { return a; }
WORD D all(double a) { return a; }
WORD F root(F a) { return std::sqrt(a); }
WORD D root(D a) { return std::sqrt(a); }
WORD F at_least(F z, F low) { return z < low ? low : z; }
WORD D at_least(D z, D low) { return z < low ? low : z; }
WORD F at_most(F z, F high) { return z > high ? high : z; }
WORD D at_most(D z, D high) { return z > high ? high : z; }
WORD F whole(const uint8_t *p) { return *p; }
WORD F whole(const int8_t *p) { return *p; }
WORD F whole(const int16_t *p) { return *p; }
WORD U longer(const uint16_t *p) { return *p; }
WORD H shorter(U a) { return (H)a; }
WORD F of_integers(U a) { return (float)(int32_t)a; }
WORD void put_bytes(uint8_t *p, U a) { *p = (uint8_t)a; }
WORD uint32_t top_bits(U a) { return a >> 31; }
WORD uint32_t top_bits(U64 a) { return (uint32_t)(a >> 63); }
WORD D sums_of(const D *a) { return a[0]; }
#endif

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__aarch64__))
template <class C> WORD U mask(C c, F) { return (U)c; }
template <class C> WORD U64 mask(C c, D) { return (U64)c; }
#else
WORD U mask(bool c, F) { return 0u - (U)c; }
WORD U64 mask(bool c, D) { return 0u - (U64)c; }
#endif
template <class To, class From> WORD To bits(From from) { To to; memcpy(&to, &from, sizeof to); return to; }
WORD F pick(U c, F a, F b) { return c ? a : b; }
WORD D pick(U64 c, D a, D b) { return c ? a : b; }
WORD F whole(const uint16_t *p) { return of_integers(longer(p)); }

#if !defined(CPUBN_HALF)
WORD U pick(U c, U a, U b) { return c ? a : b; }

// Called: they stood in each loop over float16, and took 0.4 MB.
static CALLED F of_half(const uint16_t *p) {
    U half = longer(p), rest = half & 0x7fffu, made = (rest << 13) + ((127u - 15u) << 23);
    U normal = pick(mask(rest < 0x7c00u, F()), made, made + ((128u - 16u) << 23));
    U subnormal = bits<U>(bits<F>(made + (1u << 23)) - all(6.103515625e-05f)); // 2**-14
    U quiet = pick(mask(rest > 0x7c00u, F()), (U)(normal | 0x400000u), normal);
    return bits<F>(pick(mask(rest < 0x0400u, F()), subnormal, quiet) | (half & 0x8000u) << 16);
}

static CALLED H to_half(F value) {
    U all_bits = bits<U>(value), sign = all_bits & 0x80000000u, rest = all_bits ^ sign;
    U normal = (rest - ((127u - 15u) << 23) + 0xfffu + (rest >> 13 & 1u)) >> 13;
    // Adding 0.5 leaves in the last bits what a subnormal float16, a multiple of 2**-24, keeps.
    U subnormal = bits<U>(bits<F>(rest) + all(0.5f)) - 0x3f000000u;
    U made = pick(mask(rest < (113u << 23), F()), subnormal, normal);
    made = pick(mask(rest >= (143u << 23), F()), made - made + 0x7c00u, made);
    made = pick(mask(rest > 0x7f800000u, F()), (U)(0x7e00u | (rest >> 13 & 0x3ffu)), made);
    return shorter(made | sign >> 16);
}
#endif

#if defined(__GNUC__) && defined(__x86_64__) && !defined(__FMA__)
// a * b is exact in double; its sum with c is rounded to odd there, which leaves the second rounding as if it were the first.
WORD D add_to_odd(D p, D c) {
    D s = p + c, t = s - p, error = (p - (s - t)) + (c - t);
    U64 b = bits<U64>(s), even = mask((b & 1u) == 0u, D()), inexact = mask(error != all(0.0), D());
    U64 away = mask((error > all(0.0)) == (s > all(0.0)), D());
    return bits<D>(b + (even & inexact & ((away & 2u) - 1u)));
}
WORD F multiply_add(F a, F b, F c) {
    return join(add_to_odd(low(a) * low(b), low(c)), add_to_odd(high(a) * high(b), high(c)));
}
WORD D multiply_add(D a, D b, D c) { return D{std::fma(a[0], b[0], c[0]), std::fma(a[1], b[1], c[1])}; }
#elif !(defined(__GNUC__) && (defined(__x86_64__) || defined(__aarch64__)))
WORD F multiply_add(F a, F b, F c) { return std::fma(a, b, c); }
WORD D multiply_add(D a, D b, D c) { return std::fma(a, b, c); }
#endif
} // namespace cpubn
