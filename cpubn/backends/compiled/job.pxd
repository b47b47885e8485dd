# A job: what is to be computed of which arrays, in which order, and where what is found out on the way is kept.

from libc.stdint cimport uint8_t

cdef extern from "samples.hpp" namespace "cpubn" nogil:
    cdef enum Type:
        OTHER
        FLOAT32
        FLOAT64
        FLOAT16
        BFLOAT16
        UINT8
        INT8
        UINT16
        INT16
    Py_ssize_t size_of(Type)
    cdef struct Quantizer:
        float inverse
        float zero
        float lowest
        float highest

cdef enum:
    RANK = 5  # of arrays at most
    SPLIT = 4  # axes of an array that make an outer or inner one at most

# Outer or inner indices: of one axis or, where an array does not step along several as along one, of those, the innermost first.
cdef struct Split:
    int axes
    Py_ssize_t[4] sizes

cdef struct Strided:  # an array (outer, channel, inner); no data: there is none
    char* data
    Py_ssize_t outer  # strides, of the innermost axis where there are several; in units of `size`, of signs in bits
    Py_ssize_t channel
    Py_ssize_t inner
    Type type
    Py_ssize_t size  # bytes of an element; 1 where it is not aligned, or not native
    bint swapped
    Py_ssize_t[3] outers  # strides of the other axes
    Py_ssize_t[3] inners

cdef enum:  # the roles of arrays
    OF_X
    OF_DY
    OF_RESIDUAL
    OF_KEPT
    OF_G
    OF_Y
    OF_WEIGHTS
    ROLES

cdef enum Map:
    AFFINE  # y = (x - centre) * scale + shift
    GRADIENT  # dx = scale * ((g - k) - ((x - centre) * r) * s)
    SCALE  # dx = g * scale

cdef enum:  # the rows of coefficients
    CENTRE
    FACTOR  # `scale` above
    SHIFT
    RSTD  # r
    SLOPE  # s
    LEVEL  # k
    COEFFICIENTS

cdef enum Prologue:  # what makes g of dy
    NO_PROLOGUE
    BY_Z  # dy * activation'(z), z = (x - centre) * scale + shift + residual
    BY_OUTPUT  # dy * activation'(kept)
    BY_SIGNS  # dy where its bit is set, else dy * low, or 0 where low is 0

# Where the lanes of one block stand.
cdef struct Spot:
    const char* x
    const char* dy
    const char* residual
    const char* kept
    const uint8_t* signs
    Py_ssize_t bit
    const char* weights

# Lanes side by side, step after step, and the sums that they are added to.
cdef struct Strip:
    Spot spot  # of the next step
    Py_ssize_t x_step  # in elements, of signs in bits
    Py_ssize_t dy_step
    Py_ssize_t residual_step
    Py_ssize_t kept_step
    Py_ssize_t bit_step
    Py_ssize_t weights_step  # in bytes
    Type weights_type
    bint weights_still  # one for all lanes of a step
    Py_ssize_t ahead  # elements of x from here to what is to be asked for; 0 for nothing
    Py_ssize_t dy_ahead
    const void* table  # centre of each lane and, for a gradient by z, scale and shift, in the type that is computed in
    Py_ssize_t length  # from one to the other
    Py_ssize_t keep  # the last lanes count; the others were counted before
    double* s
    double* q
    bint closes  # nothing is left pending at the end
    Py_ssize_t pending  # additions that have not gone into the sums yet
    double* waiting  # the lanes of s, then of q, that hold them: 16 doubles each, or 32 floats

# Runs of the elementwise pass, one after the other: where the first lanes stand, their length, and their coefficients.
cdef struct Stretch:
    Spot spot
    char* y
    char* g
    Py_ssize_t n
    Py_ssize_t runs  # so many, of one channel after the other or, of columns, of one outer row after the other
    Py_ssize_t channel  # that the first one is of
    const void* table  # of the columns, in the type that is computed in
    Py_ssize_t column  # that each starts with
    const Type* types  # of the samples of each role, for loops that are of no one type
    bint still  # all lanes of a run have one weight
    bint past  # they are written past the cache

# Outer rows, inner elements and channels, each from the first to before the last.
cdef struct Block:
    Py_ssize_t o0
    Py_ssize_t o1
    Py_ssize_t i0
    Py_ssize_t n
    Py_ssize_t c0
    Py_ssize_t c1

# One chunk of the channels from c0 to before c1, whose inner runs are rows, and where their sums go.
cdef struct Rows:
    Py_ssize_t c0
    Py_ssize_t c1
    Py_ssize_t o0
    Py_ssize_t o1
    Py_ssize_t i0
    Py_ssize_t i1
    double* s
    double* q

cdef struct Bounds:  # of the signs that are packed
    double low
    double high
    bint nan

cdef struct Kernels

cdef struct Job:
    const Kernels* kernels
    Py_ssize_t outer
    Py_ssize_t channels
    Py_ssize_t inner
    Split outer_split
    Split inner_split
    Strided x
    Strided dy
    Strided residual
    Strided kept
    Strided signs
    Strided g  # where the prologue's result is written as well
    Strided y  # or dx
    Strided weights  # what each sample counts for, 0 or more: uint8 of 0 and 1, float32 or float64
    bint backward
    bint given  # the coefficients are, and stand in an array of the caller's
    bint prepared  # as are the table and what is wide
    bint sums  # otherwise the coefficients are given
    bint apply  # otherwise only the sums are wanted
    Map map
    Prologue prologue
    int activation  # which formula of activations.hpp, 0 for none
    double low
    double high
    Quantizer quantizer  # of y; an inverse of 0: there is none
    bint plain  # the elementwise pass is the map and nothing else
    Type types[ROLES]
    bint in_rows  # every array's inner steps are 1, and its samples of a type that has loops; those of `mixed` are of any
    bint direct  # they are, and all of x's type
    bint joined  # they are in rows, and in every array a channel's inner run starts where the one before it ends
    # The order of summation: see maths/order.py.
    bint columns
    Py_ssize_t together
    Py_ssize_t levels
    Py_ssize_t pieces
    Py_ssize_t chunks
    Py_ssize_t span
    Py_ssize_t spans
    # How the work is shared out: see planner.pyx.
    Py_ssize_t group  # channels summed together, and finished together where a thread takes them from sums to output
    Py_ssize_t groups
    Py_ssize_t block  # outer rows taken together where the coefficients are known
    Py_ssize_t band  # and channels of them
    Py_ssize_t bands
    Py_ssize_t part  # and inner elements
    Py_ssize_t parts_across
    bint columns_apply  # the elementwise pass goes by columns, from a table
    bint down  # y runs along the outer rows of x, being of another layout
    bint far  # the arrays are larger than the second-level cache: memory is asked for early
    bint past  # y is written past the cache
    # Vectors of channels, float64.
    const double* mean
    const double* mean_low
    const double* var
    const double* weight
    const double* bias
    double eps
    const double* counts  # of samples a channel, or of their weights, where they are not those of x alone
    double filling  # y where a weight is 0
    double* result  # (3, C): mean, its low word, m2; or (2, C): s0, s1
    double* coefficients  # (3 or COEFFICIENTS, C)
    # What a call needs beside its arrays.
    double* pivots  # (C,)
    uint8_t* states  # (C,): how a channel is to be summed next; see sums.pxd
    double* parts  # (spans, 2, C), where spans are shared out
    uint8_t* wide  # (C,): bits for a map, and a z, that must be computed in float64
    void* table  # (3 or COEFFICIENTS, length) coefficients in the type that is computed in, column by column
    char* scratch  # of the threads, one after the other
    Py_ssize_t period  # columns of the table; the first ones stand once more behind them
    Py_ssize_t length
    bint whole  # a thread takes a group of channels from sums to output


# The loops over lanes, for one type of samples.
ctypedef void (*places_function)(const void* x, const Py_ssize_t* starts, Py_ssize_t n, double* sums) noexcept nogil
ctypedef void (*rows_function)(const Job*, const void* x, Strip*, Py_ssize_t n, Py_ssize_t steps, Py_ssize_t rest) noexcept nogil
ctypedef void (*run_function)(const Job*, const void* x, const Stretch*) noexcept nogil
ctypedef int (*formula_function)(int code, bint by_output) noexcept nogil
ctypedef void (*signs_function)(const void* y, Py_ssize_t n, const Bounds*, uint8_t* bits) noexcept nogil
# The walks over a job.
ctypedef void (*pivots_function)(Job*, Py_ssize_t c0, Py_ssize_t n) noexcept nogil
ctypedef void (*span_function)(Job*, Py_ssize_t c0, Py_ssize_t n, Py_ssize_t span, void* scratch) noexcept nogil
ctypedef Py_ssize_t (*close_function)(Job*, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil
ctypedef void (*block_function)(const Job*, const Block*) noexcept nogil
ctypedef void (*prepare_function)(Job*, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil

# Vectors of channels.
ctypedef void (*widen_function)(const float* v, Py_ssize_t n, double* into) noexcept nogil
ctypedef void (*narrow_function)(const double* v, Py_ssize_t n, float* into) noexcept nogil
ctypedef void (*scale_function)(double* v, const double* var, Py_ssize_t n, double eps) noexcept nogil
ctypedef void (*running_function)(
    double* running, const double* stats, Py_ssize_t n, double count, const double* counts, double share
) noexcept nogil

ctypedef void (*channels_function)(const Job*, const void* x, const Rows*) noexcept nogil
ctypedef void (*row_pivots_function)(Job*, const void* x, Py_ssize_t c0, Py_ssize_t c1) noexcept nogil

ctypedef void (*weighted_function)(
    const Job*, const void* x, Strip*, Py_ssize_t rows, Py_ssize_t steps, Py_ssize_t rest, void* s, void* q
) noexcept nogil

cdef struct Loops:
    places_function add_places
    channels_function add_channels
    row_pivots_function find_row_pivots
    rows_function add_rows
    weighted_function add_weighted  # of float32 and float64
    run_function apply
    signs_function pack_signs

# The kernels of one instruction set. Loops are entered by pointer, so that each stands once in the machine's code.
cdef struct Kernels:
    size_t scratch  # bytes that a thread needs to sum
    formula_function formula_of
    Loops loops[5]  # of float32, float16, bfloat16, float64 and, of the elementwise pass alone, mixed types
    prepare_function prepare
    pivots_function find_pivots
    span_function sum_span
    close_function close
    block_function apply
    widen_function widen_vector
    narrow_function narrow_vector
    running_function move_running
    scale_function scale_by_rstd


cdef inline bint fits(Type type, Type wanted) noexcept nogil:
    """Whether samples of a type can be loaded as those of the wanted one, or with OTHER as floats, each of its own type."""
    if wanted == OTHER:
        return type != OTHER and type != FLOAT64
    return type == wanted and type <= BFLOAT16


cdef enum:
    MIXED = 4  # where the loops stand that take samples of any type but float64


cdef inline int loops_of(Type type) noexcept nogil:
    """Where the loops of a type stand; all but these four are computed as float32."""
    return 3 if type == FLOAT64 else 1 if type == FLOAT16 else 2 if type == BFLOAT16 else 0
