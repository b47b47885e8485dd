/* Conversions between float32 and the other types of samples. Rounding is to nearest, ties to even; where the CPU has
   instructions for float16 they are taken, and give the same bits as the lines below them. */

#ifndef CPUBN_TYPES_H
#define CPUBN_TYPES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "_machine.h"

static inline float cpubn_float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t cpubn_bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Without branches, so that the compiler makes vectors of loops over these four. */

static inline float cpubn_from_half(uint16_t half) {
    uint32_t rest = half & 0x7fffu, bits = (rest << 13) + ((127 - 15) << 23);
    float normal = cpubn_float_of_bits(rest < 0x7c00u ? bits : bits + ((128 - 16) << 23));
    float subnormal = cpubn_float_of_bits(bits + (1u << 23)) - 6.103515625e-05f /* 2**-14 */;
    float magnitude = rest < 0x0400u ? subnormal : normal;
    return cpubn_float_of_bits(cpubn_bits_of_float(magnitude) | (uint32_t)(half & 0x8000u) << 16);
}

static inline uint16_t cpubn_to_half(float value) {
    uint32_t bits = cpubn_bits_of_float(value), sign = bits & 0x80000000u, rest = bits ^ sign;
    uint32_t normal = (rest - ((127u - 15u) << 23) + 0xfffu + (rest >> 13 & 1u)) >> 13;
    /* Adding 0.5 leaves in the last bits what a subnormal float16, a multiple of 2**-24, keeps. */
    uint32_t subnormal = cpubn_bits_of_float(cpubn_float_of_bits(rest) + 0.5f) - cpubn_bits_of_float(0.5f);
    uint32_t made = rest < 113u << 23 ? subnormal : normal;
    made = rest >= 143u << 23 ? 0x7c00u : made;
    made = rest > 0x7f800000u ? 0x7e00u : made;
    return (uint16_t)(made | sign >> 16);
}

static inline float cpubn_from_bfloat(uint16_t bfloat) { return cpubn_float_of_bits((uint32_t)bfloat << 16); }

static inline uint16_t cpubn_to_bfloat(float value) {
    uint32_t bits = cpubn_bits_of_float(value);
    uint32_t made = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : made);
}

static inline void cpubn_store_bfloats(const float *from, uint16_t *to, ptrdiff_t n) {
    ptrdiff_t i, whole = 0;
#if defined(__AVX512BW__)
    /* The odd words of two vectors: half of what the compiler needs for its shifts and narrowing. */
    const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i odd = _mm512_add_epi32(_mm512_set1_epi32(0x30001), _mm512_mullo_epi32(_mm512_set1_epi32(0x40004), lanes));
    const __m512i one = _mm512_set1_epi32(1), most = _mm512_set1_epi32(0x7fff), quiet = _mm512_set1_epi32(0x400000);
    whole = n / 32 * 32;
    for (i = 0; i < whole; i += 32) {
        __m512i made[2];
        for (int k = 0; k < 2; k++) {
            __m512 value = _mm512_loadu_ps(from + i + 16 * k);
            __m512i bits = _mm512_castps_si512(value), even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
            made[k] = _mm512_add_epi32(_mm512_add_epi32(bits, most), even);
            made[k] = _mm512_mask_or_epi32(made[k], _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q), bits, quiet);
        }
        _mm512_storeu_si512((void *)(to + i), _mm512_permutex2var_epi16(made[0], odd, made[1]));
    }
#endif
    for (i = whole; i < n; i++) to[i] = cpubn_to_bfloat(from[i]);
}

static inline void cpubn_load_halves(const uint16_t *from, float *to, ptrdiff_t n) {
    ptrdiff_t i, whole = 0;
#if defined(__AVX512F__)
    whole = n / 16 * 16;
    for (i = 0; i < whole; i += 16)
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + i))));
#elif defined(__F16C__) || (defined(_MSC_VER) && defined(__AVX2__))
    whole = n / 8 * 8;
    for (i = 0; i < whole; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + i))));
#endif
    for (i = whole; i < n; i++) to[i] = cpubn_from_half(from[i]);
}

static inline void cpubn_store_halves(const float *from, uint16_t *to, ptrdiff_t n) {
    ptrdiff_t i, whole = 0;
#if defined(__AVX512F__)
    whole = n / 16 * 16;
    for (i = 0; i < whole; i += 16)
        _mm256_storeu_si256((__m256i *)(to + i), _mm512_cvtps_ph(_mm512_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__) || (defined(_MSC_VER) && defined(__AVX2__))
    whole = n / 8 * 8;
    for (i = 0; i < whole; i += 8)
        _mm_storeu_si128((__m128i *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (i = whole; i < n; i++) to[i] = cpubn_to_half(from[i]);
}

#endif
