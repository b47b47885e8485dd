// Included before all else by sanitize.py. Stores past the cache, and loads and stores of the first lanes alone, are
// builtins of the compiler's, of whose memory the sanitizers see nothing: here are ones that they see.
#pragma once
#if defined(__x86_64__)
#include <immintrin.h>
#define _mm_stream_ps _mm_store_ps
#define _mm_stream_pd _mm_store_pd
#define _mm_stream_si128 _mm_store_si128
#if defined(__AVX2__)
static inline __m256d checked_load(const double *p, __m256i lanes) {
    __m256d made = {};
    for (int i = 0; i < 4; i++)
        if (lanes[i] < 0) made[i] = p[i];
    return made;
}
static inline void checked_store(double *p, __m256i lanes, __m256d a) {
    for (int i = 0; i < 4; i++)
        if (lanes[i] < 0) p[i] = a[i];
}
#define _mm256_stream_ps _mm256_store_ps
#define _mm256_stream_pd _mm256_store_pd
#define _mm256_stream_si256 _mm256_store_si256
#define _mm256_maskload_pd checked_load
#define _mm256_maskstore_pd checked_store
#endif
#if defined(__AVX512F__)
static inline __m512d checked_load(__mmask8 lanes, const double *p) {
    __m512d made = {};
    for (int i = 0; i < 8; i++)
        if (lanes >> i & 1) made[i] = p[i];
    return made;
}
static inline void checked_store(double *p, __mmask8 lanes, __m512d a) {
    for (int i = 0; i < 8; i++)
        if (lanes >> i & 1) p[i] = a[i];
}
#define _mm512_stream_ps _mm512_store_ps
#define _mm512_stream_pd _mm512_store_pd
#define _mm512_maskz_loadu_pd checked_load
#define _mm512_mask_storeu_pd checked_store
#endif
#endif
