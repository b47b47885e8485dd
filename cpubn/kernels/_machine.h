/* What Cython has no words for: the CPU's features, its fused multiply-add, the size of its last-level cache, and how to
   ask for memory early and write past the cache. */

#ifndef CPUBN_MACHINE_H
#define CPUBN_MACHINE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef _MSC_VER
#pragma fp_contract(off) /* before Visual Studio 2022, /fp:precise contracts a * b + c */
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define CPUBN_X86_64 1
#include <immintrin.h>
#else
#define CPUBN_X86_64 0
#endif

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#ifdef _OPENMP
#include <omp.h>
static int cpubn_openmp_max_threads(void) { return omp_get_max_threads(); }
#else
static int cpubn_openmp_max_threads(void) { return 0; }
#endif

/* The compilers' own tests look at what the operating system saves on a context switch, too. */
static int cpubn_has_avx2(void) {
#if !CPUBN_X86_64
    return 0;
#elif defined(_MSC_VER) && !defined(__clang__)
    return IsProcessorFeaturePresent(40 /* PF_AVX2_INSTRUCTIONS_AVAILABLE */) != 0; /* cl uses no FMA without __FMA__ */
#else
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
}

static int cpubn_has_avx512(void) {
#if !CPUBN_X86_64
    return 0;
#elif defined(_MSC_VER) && !defined(__clang__)
    int leaf[4];
    if (!IsProcessorFeaturePresent(41 /* PF_AVX512F_INSTRUCTIONS_AVAILABLE */)) return 0;
    __cpuidex(leaf, 7, 0);
    /* DQ, BW, VL */
    return (leaf[1] & (1 << 17)) && (leaf[1] & (1 << 30)) && (leaf[1] & (1 << 31));
#else
    __builtin_cpu_init();
    return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
}

/* Bytes of the last-level cache that a core reaches; 32 MB where the system does not say. On Linux from sysfs:
   sysconf answers 320 MB, a whole socket's, for an EPYC whose cores reach 32 MB each. */
static size_t cpubn_cache_bytes(void) {
    long long bytes = 0;
#if defined(__APPLE__)
    size_t size = sizeof(bytes);
    if (sysctlbyname("hw.l3cachesize", &bytes, &size, NULL, 0) != 0 || bytes <= 0) {
        size = sizeof(bytes);
        if (sysctlbyname("hw.l2cachesize", &bytes, &size, NULL, 0) != 0) bytes = 0;
    }
#elif defined(__linux__)
    FILE *file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r");
    if (file == NULL) file = fopen("/sys/devices/system/cpu/cpu0/cache/index2/size", "r");
    if (file != NULL) {
        if (fscanf(file, "%lldK", &bytes) != 1) bytes = 0;
        bytes *= 1024;
        fclose(file);
    }
#endif
    return bytes > 0 ? (size_t)bytes : (size_t)32 << 20;
}

/* a * b + c where a * b is exact, so that rounding once gives the same bits as rounding twice. */
static inline double cpubn_add_exact(double a, double b, double c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return fma(a, b, c);
#else
    return a * b + c;
#endif
}

/* 2**k from k + bias + 1.5 * 2**23 (2**52 in double), whose lowest bits are those of the exponent. */
static inline float cpubn_power_of_two_float(float biased) {
    uint32_t bits;
    memcpy(&bits, &biased, sizeof(bits));
    bits <<= 23;
    memcpy(&biased, &bits, sizeof(bits));
    return biased;
}

static inline double cpubn_power_of_two_double(double biased) {
    uint64_t bits;
    memcpy(&bits, &biased, sizeof(bits));
    bits <<= 52;
    memcpy(&biased, &bits, sizeof(bits));
    return biased;
}

/* Ask for a line of memory that will be read soon, into the second-level cache: the first is too small. The empty asm keeps
   GCC from dropping, as without effect, whole functions that do nothing else. */
static inline void cpubn_prefetch(const void *p) {
#if CPUBN_X86_64
    _mm_prefetch((const char *)p, _MM_HINT_T1);
#elif defined(__GNUC__)
    __builtin_prefetch(p, 0, 2);
#else
    (void)p;
#endif
#if defined(__GNUC__)
    __asm__ volatile("");
#endif
}

/* Copy `bytes`, of any alignment, to memory past the cache. */
static void cpubn_stream(void *to, const void *from, size_t bytes) {
#if CPUBN_X86_64
    char *t = (char *)to;
    const char *f = (const char *)from;
    size_t head = (size_t)(-(uintptr_t)t & 63);
    if (head > bytes) head = bytes;
    memcpy(t, f, head);
    t += head, f += head, bytes -= head;
    for (; bytes >= 64; t += 64, f += 64, bytes -= 64) {
#if defined(__AVX512F__)
        _mm512_stream_si512((__m512i *)t, _mm512_loadu_si512((const void *)f));
#elif defined(__AVX__)
        _mm256_stream_si256((__m256i *)t, _mm256_loadu_si256((const __m256i *)f));
        _mm256_stream_si256((__m256i *)t + 1, _mm256_loadu_si256((const __m256i *)f + 1));
#else
        _mm_stream_si128((__m128i *)t, _mm_loadu_si128((const __m128i *)f));
        _mm_stream_si128((__m128i *)t + 1, _mm_loadu_si128((const __m128i *)f + 1));
        _mm_stream_si128((__m128i *)t + 2, _mm_loadu_si128((const __m128i *)f + 2));
        _mm_stream_si128((__m128i *)t + 3, _mm_loadu_si128((const __m128i *)f + 3));
#endif
    }
    memcpy(t, f, bytes);
#else
    memcpy(to, from, bytes);
#endif
}

/* Streamed stores become visible to other threads only behind a fence. */
static void cpubn_stream_end(void) {
#if CPUBN_X86_64
    _mm_sfence();
#endif
}

#endif
