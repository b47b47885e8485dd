# cpubn.h for Cython: `from cpubn.c cimport cpubn_call, cpubn_import, ...`, built with -I of cpubn.get_include().

cdef extern from "cpubn.h" nogil:
    const int CPUBN_VERSION

    cdef enum cpubn_type:
        CPUBN_FLOAT32
        CPUBN_FLOAT64
        CPUBN_FLOAT16
        CPUBN_BFLOAT16
        CPUBN_UINT8
        CPUBN_INT8
        CPUBN_UINT16
        CPUBN_INT16

    cdef enum cpubn_activation:
        CPUBN_NONE
        CPUBN_RELU
        CPUBN_RELU6
        CPUBN_CLIP
        CPUBN_LEAKY_RELU
        CPUBN_HARDSWISH
        CPUBN_SILU
        CPUBN_GELU
        CPUBN_SIGMOID
        CPUBN_TANH
        CPUBN_SOFTPLUS
        CPUBN_MISH
        CPUBN_ELU

    cdef enum cpubn_status:
        CPUBN_OK
        CPUBN_BAD_SIZE
        CPUBN_MISSING
        CPUBN_BAD_TYPE
        CPUBN_BAD_STRIDES
        CPUBN_BAD_NUMBER
        CPUBN_BAD_ACTIVATION
        CPUBN_BAD_VARIANCE
        CPUBN_FEW_VALUES
        CPUBN_NO_MEMORY
        CPUBN_OVERLAP

    ctypedef struct cpubn_array:
        void* data
        ptrdiff_t outer
        ptrdiff_t channel
        ptrdiff_t inner
        int type

    ctypedef struct cpubn_axes:
        int rank
        int channel
        ptrdiff_t shape[5]
        ptrdiff_t strides[7][5]

    ctypedef struct cpubn_call:
        size_t size
        ptrdiff_t outer
        ptrdiff_t channels
        ptrdiff_t inner
        int threads
        int activation
        double low
        double high
        double eps
        double momentum
        int inference
        cpubn_array x
        cpubn_array y
        cpubn_array residual
        cpubn_array dy
        cpubn_array dx
        cpubn_array g
        cpubn_array output
        const double* mean
        const double* var
        const double* mean_low
        const double* weight
        const double* bias
        double* running_mean
        double* running_var
        double* stats
        double* sums
        double* dweight
        double* dbias
        double* affine
        const cpubn_axes* axes

    ctypedef int (*cpubn_function)(const cpubn_call*) noexcept nogil

    ctypedef struct cpubn_table:
        int version
        cpubn_function moments
        cpubn_function normalize
        cpubn_function train_forward
        cpubn_function gradient_sums
        cpubn_function train_backward
        cpubn_function freeze
        cpubn_function frozen
        const char* (*message)(int status) noexcept nogil
        int (*order)(const cpubn_call*, int* axes) noexcept nogil

    cpubn_call cpubn_over(ptrdiff_t outer, ptrdiff_t channels, ptrdiff_t inner)
    cpubn_array cpubn_of_shape(const cpubn_call*, void* data, int type)

cdef extern from "cpubn.h":
    const cpubn_table* cpubn_import() except NULL
