cimport numpy as cnp

from cpubn.backends.compiled.job cimport Job, Kernels, Strided, Type

cdef Type type_of(cnp.ndarray a) noexcept
cdef int set_order(Job* job) except -1
cdef int set_epilogue(Job* job, activation, quantization) except -1
cdef int start(Job* job, int threads) except -1
cdef bint run_small(Job* job) noexcept

cdef class CompiledKernels:
    cdef object capsule
    cdef const Kernels* kernels
    cdef readonly str name
    cdef Job new_job(self, cnp.ndarray x, cnp.ndarray y)
