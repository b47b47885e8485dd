# What machine.hpp asks of the CPU and of OpenMP.

from libc.stdint cimport uint64_t

cdef extern from "machine.hpp" nogil:
    const double NAN
    int cpubn_openmp_max_threads()
    int cpubn_has_avx2()
    int cpubn_has_avx512()
    size_t cpubn_cache_bytes()
    uint64_t cpubn_calm()
    void cpubn_restore(uint64_t before)
    void cpubn_clear(void* p, size_t bytes)
