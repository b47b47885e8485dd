cimport numpy as cnp

from cpubn.backends.compiled.job cimport Job, Kernels, Strided, Type

cdef enum:
    SMALL_BYTES = 32768  # less is computed before threads are counted and the interpreter's lock is let go of: 0.2 us

cdef Type type_of(cnp.ndarray a) noexcept
cdef Type type_of_number(int number, a) noexcept
cdef int number_of(Type type) noexcept
cdef bint is_real(value)
cdef bint is_memmap(a) noexcept
cdef bint share_memory(a, b)
cdef bint overlaps_itself(a)
cdef int set_epilogue(Job* job, activation, quantization) except -1
cdef int set_activation(Job* job, activation, bint by_output) except -1
cdef bint work(Job* job, int threads) noexcept nogil
cdef int run_job(Job* job, int threads) except -1

cdef class CompiledKernels:
    cdef object capsule
    cdef const Kernels* kernels
    cdef readonly str name
    cdef Job new_job(self, cnp.ndarray x, cnp.ndarray y, weights)
