/* cpubn for C and C++: batch normalization without an interpreter, on the best instruction set of this CPU.

       const cpubn_table *bn = cpubn_import();      (once, with the interpreter's lock; NULL with an ImportError set)
       cpubn_call call = cpubn_over(N, C, H * W);   (all else 0, which means: none)
       call.x = call.y = cpubn_of_shape(&call, samples, CPUBN_FLOAT32);
       call.mean = mean; call.var = var; call.eps = 1e-5;
       if (bn->normalize(&call) != CPUBN_OK) ...    (from any thread, with or without the lock)

   Samples are (outer, channels, inner): of NCHW (N, C, H * W), of NHWC (N * H * W, C, 1); or, with `axes`, of any rank
   from 2 to 5 and any strides. Vectors are float64, (channels,), contiguous. A function writes nothing before it has
   checked the call; what it cannot see, it takes on trust: that memory is as large as the call says, and, without
   `axes`, that what is written overlaps nothing else, but for y and dx, which may be x, residual or dy itself. The same
   walk of the same values gives the same bits on any number of threads.

   This file may grow: functions at the end of cpubn_table, fields at the end of cpubn_call, whose `size` tells what the
   caller knows of. Nothing that it has goes away or changes its meaning. */
#ifndef CPUBN_H
#define CPUBN_H

#include <stddef.h>
#include <string.h>

#define CPUBN_VERSION 1 /* of this file */

enum cpubn_type { /* of samples; y and dy, dx, g, output are of one of the first four */
    CPUBN_FLOAT32 = 1,
    CPUBN_FLOAT64,
    CPUBN_FLOAT16,
    CPUBN_BFLOAT16,
    CPUBN_UINT8,
    CPUBN_INT8,
    CPUBN_UINT16,
    CPUBN_INT16
};

enum cpubn_activation { /* low and high of the call: what stands in brackets */
    CPUBN_NONE,
    CPUBN_RELU,
    CPUBN_RELU6,
    CPUBN_CLIP,       /* (low, high); a NaN bounds nothing */
    CPUBN_LEAKY_RELU, /* (slope) */
    CPUBN_HARDSWISH,
    CPUBN_SILU,
    CPUBN_GELU,
    CPUBN_SIGMOID,
    CPUBN_TANH,
    CPUBN_SOFTPLUS,
    CPUBN_MISH,
    CPUBN_ELU /* (alpha) */
};

enum cpubn_status {
    CPUBN_OK,
    CPUBN_BAD_SIZE,       /* call->size is not of any version, or the shape is negative or of more bytes than there are */
    CPUBN_MISSING,        /* an array or a vector that the function needs is NULL */
    CPUBN_BAD_TYPE,       /* an array's type is none, or not the one that it must have beside x */
    CPUBN_BAD_STRIDES,    /* what is written has a stride of 0, or overlaps itself */
    CPUBN_BAD_NUMBER,     /* eps, momentum or the activation's numbers are out of their range */
    CPUBN_BAD_ACTIVATION, /* there is none of this number */
    CPUBN_BAD_VARIANCE,   /* var + eps is 0 or less in a channel */
    CPUBN_FEW_VALUES,     /* the batch's own statistics need more than 1 value per channel */
    CPUBN_NO_MEMORY,
    CPUBN_OVERLAP /* of a call with axes: what is written shares memory that it must not */
};

typedef struct cpubn_array {
    void *data;                      /* NULL: there is none */
    ptrdiff_t outer, channel, inner; /* strides in bytes, also negative ones, and of what is only read 0 */
    int type;                        /* a cpubn_type */
} cpubn_array;

typedef struct cpubn_axes { /* arrays of up to five axes and any strides, walked as x lies in memory; none is copied */
    int rank, channel;      /* how many axes, at least two, and which of them is the channels' */
    ptrdiff_t shape[5];
    ptrdiff_t strides[7][5]; /* in bytes, of x, y, residual, dy, dx, g and output */
} cpubn_axes;

typedef struct cpubn_call {
    size_t size;                      /* sizeof(cpubn_call) */
    ptrdiff_t outer, channels, inner; /* the shape of every array */
    int threads;                      /* at most so many; 0 is 1, as is any in a forked child */
    int activation;                   /* a cpubn_activation */
    double low, high;                 /* its numbers */
    double eps;
    double momentum;           /* of running_mean and running_var, from 0 to 1 */
    int inference;             /* train_backward: mean and var are constants, not the batch's own */
    cpubn_array x;             /* of any type; where its statistics are wanted or a gradient, of a floating one */
    cpubn_array y;             /* the output, of any floating type; of float64 only if x is */
    cpubn_array residual;      /* added before the activation, of y's type, in backward of x's */
    cpubn_array dy, dx, g;     /* gradients of y, of x and, where it is wanted, of the residual; of x's type */
    cpubn_array output;        /* y of the forward, which spares train_backward the activation of some; of x's type */
    const double *mean, *var;  /* that x is normalized with */
    const double *mean_low;    /* what mean lost when it was rounded, as `stats` has it; NULL for zeros */
    const double *weight;      /* NULL for ones */
    const double *bias;        /* NULL for zeros */
    double *running_mean;      /* both or neither; train_forward moves them, the variance by the unbiased one */
    double *running_var;
    double *stats;             /* (3, channels): mean, mean_low, m2 = sum((x - mean)**2) */
    double *sums;              /* (2, channels): sum(g), sum(g * (x - mean)), g being dy through the activation */
    double *dweight, *dbias;   /* of train_backward; NULL where they are not wanted */
    double *affine;            /* (3, channels): centre, scale, shift; `freeze` writes and `frozen` reads it */
    const cpubn_axes *axes;    /* NULL, or the shape and strides of all arrays, in place of those above; then it is
                                  checked that what is written overlaps nothing else, as far as it says above */
} cpubn_call;

typedef struct cpubn_table {
    int version; /* CPUBN_VERSION of the library */
    /* stats of x. */
    int (*moments)(const cpubn_call *);
    /* y = activation((x - mean) / sqrt(var + eps) * weight + bias + residual). */
    int (*normalize)(const cpubn_call *);
    /* The same with x's own mean and biased variance; stats; running_mean and running_var move. */
    int (*train_forward)(const cpubn_call *);
    /* sums of dy and x, by the statistics mean, mean_low, var. */
    int (*gradient_sums)(const cpubn_call *);
    /* dx, dweight, dbias and g of dy and x. */
    int (*train_backward)(const cpubn_call *);
    /* affine of mean, var, weight, bias and eps, for samples of x.type; no array is needed. */
    int (*freeze)(const cpubn_call *);
    /* y = activation((x - centre) * scale + shift + residual), by affine. */
    int (*frozen)(const cpubn_call *);
    /* A status in words. */
    const char *(*message)(int status);
    /* axes <- those of x from the outermost in memory to the innermost, for a new array that shall lie like it. */
    int (*order)(const cpubn_call *, int *axes);
} cpubn_table;

/* A call over arrays of that shape, with nothing else in it. */
static inline cpubn_call cpubn_over(ptrdiff_t outer, ptrdiff_t channels, ptrdiff_t inner) {
    cpubn_call call;
    memset(&call, 0, sizeof(call));
    call.size = sizeof(call);
    call.outer = outer;
    call.channels = channels;
    call.inner = inner;
    return call;
}

/* An array of the call's shape whose samples lie end to end. */
static inline cpubn_array cpubn_of_shape(const cpubn_call *call, void *data, int type) {
    ptrdiff_t size = type == CPUBN_FLOAT64 ? 8 : type == CPUBN_FLOAT32 ? 4 : type == CPUBN_UINT8 || type == CPUBN_INT8 ? 1 : 2;
    cpubn_array a;
    a.data = data;
    a.outer = call->channels * call->inner * size;
    a.channel = call->inner * size;
    a.inner = size;
    a.type = type;
    return a;
}

#ifdef Py_PYTHON_H
/* The table, for as long as the process lives; NULL with an ImportError set. Needs the interpreter's lock. */
static inline const cpubn_table *cpubn_import(void) {
    const cpubn_table *table = NULL;
    PyObject *module = PyImport_ImportModule("cpubn.capi"), *capsule = NULL;
    if (module != NULL) capsule = PyObject_GetAttrString(module, "table");
    if (capsule != NULL) table = (const cpubn_table *)PyCapsule_GetPointer(capsule, "cpubn.capi.table");
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    if (table != NULL && table->version < CPUBN_VERSION) {
        PyErr_Format(PyExc_ImportError,
                     "cpubn's functions must be of version %d or later, as this module was built for, got %d; "
                     "install a newer cpubn, or build the module with the header of the one that is installed",
                     CPUBN_VERSION, table->version);
        return NULL;
    }
    return table;
}
#endif

#endif
