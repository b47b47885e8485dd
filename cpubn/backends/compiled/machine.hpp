/* What a planner asks of the machine: threads, the CPU's features, the size of its last-level cache, and the control register. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

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
[[maybe_unused]] static int cpubn_openmp_max_threads(void) { return omp_get_max_threads(); }
#else
[[maybe_unused]] static int cpubn_openmp_max_threads(void) { return 0; }
#endif

/* The compilers' own tests look at what the operating system saves on a context switch, too. */
[[maybe_unused]] static int cpubn_has_avx2(void) {
#if !CPUBN_X86_64
    return 0;
#elif defined(_MSC_VER) && !defined(__clang__)
    return IsProcessorFeaturePresent(40 /* PF_AVX2_INSTRUCTIONS_AVAILABLE */) != 0; /* cl uses no FMA without __FMA__ */
#else
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
}

[[maybe_unused]] static int cpubn_has_avx512(void) {
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

/* Bytes of the last-level cache that a core reaches, 32 MB at most, and where the system does not say. On Linux from
   sysfs: sysconf answers 320 MB, a whole socket's, for an EPYC whose cores reach 32 MB each. Two cores of a Xeon whose
   socket has 260 MB write 51 MB past it in 0.62 of the time, and 25 MB in 0.85; but who reads 25 MB next finds them there. */
[[maybe_unused]] static size_t cpubn_read_cache_bytes(void) {
    const long long most = 32ll << 20;
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
    return (size_t)(bytes > 0 && bytes < most ? bytes : most);
}
[[maybe_unused]] static size_t cpubn_cache_bytes(void) {
    static const size_t known = cpubn_read_cache_bytes(); // once, whoever of several threads is first
    return known;
}

/* Rounding to nearest, and denormal numbers as such, whatever another library has set: each thread sets them for the
   duration of a kernel, and puts back what it found. */
[[maybe_unused]] static inline uint64_t cpubn_calm(void) {
#if CPUBN_X86_64
    unsigned before = _mm_getcsr();
    if (before != 0x1f80) _mm_setcsr(0x1f80);
    return before;
#elif defined(__aarch64__) && defined(__GNUC__)
    uint64_t before, none = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    if (before != 0) __asm__ volatile("msr fpcr, %0" : : "r"(none));
    return before;
#else
    return 0;
#endif
}

[[maybe_unused]] static inline void cpubn_restore(uint64_t before) {
#if CPUBN_X86_64
    if (before != 0x1f80) _mm_setcsr((unsigned)before);
#elif defined(__aarch64__) && defined(__GNUC__)
    if (before != 0) __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    (void)before;
#endif
}

// Of a size that the compiler knows, memset becomes `rep stos`, with which a call took 15 ns more.
[[maybe_unused]] static inline void cpubn_clear(void *p, size_t bytes) {
    volatile size_t n = bytes;
    memset(p, 0, n);
}
