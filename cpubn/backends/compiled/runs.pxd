# Runs: elements of every array of a job, counted through as one, and whether lanes can be loaded from where they stand.

from libc.string cimport memcmp

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.places cimport *

cdef enum State:  # how a channel is summed next
    ABOUT_SAMPLES  # about the mean of some
    ABOUT_MEAN  # about the mean that was found
    IN_DOUBLE
    IN_DOUBLE_ABOUT_MEAN
    DONE

cdef struct Run:
    Place x
    Place dy
    Place residual
    Place kept
    Place signs
    Place g
    Place y
    Place weights
    int standing  # a bit for the role of each array that lanes are loaded from, or stored, where it stands


cdef inline Py_ssize_t lanes_of(const any_sample* x) noexcept nogil:
    return 16 if any_sample is double else 32


cdef inline Py_ssize_t whole_steps(bint wide, Py_ssize_t n) noexcept nogil:
    """Steps of lanes in n elements, without the division that a compiler makes of an unknown number of lanes."""
    return n >> (4 if wide else 5)


cdef inline void clear(double* sums, Py_ssize_t n) noexcept nogil:
    """n sums, less what is no multiple of 16: by lanes, since `rep stos`, as which a memset may end, took as long as a short run's sums."""
    cdef Py_ssize_t i
    for i in range(n >> 4):
        store(sums + 16 * i, Lane[double](0.0))


cdef inline bint is_direct(const Job* job, bint wide) noexcept nogil:
    """Whether lanes can be loaded from every row of the arrays for what is computed in float64, or in float32."""
    return job.direct and wide == (job.x.type == FLOAT64)


cdef inline bint sums_directly(const Job* job, bint wide) noexcept nogil:
    """And whether one outer row lies behind the other, too."""
    cdef bint has_loops = job.weights.data is NULL or job.x.type <= FLOAT64  # sums of weighted halves go by buffers
    return is_direct(job, wide) and job.outer_split.axes <= 1 and has_loops


cdef inline const Loops* loops_for(const Job* job, bint wide, bint direct) noexcept nogil:
    """Those of the data's type, or of what buffers hold."""
    return &job.kernels.loops[loops_of(job.x.type) if direct else 3 if wide else 0]


cdef inline Lane[any_sample] lanes_at(const any_sample* x, const void* table, Py_ssize_t i) noexcept nogil:
    """Lanes from element i of a table in the type that samples of x are computed in."""
    if any_sample is double:
        return load(<const double*>table + i)
    else:
        return <Lane[any_sample]>load(<const float*>table + i)


cdef inline void keep_lanes(const sample* x, double* to, Lane[sample] lanes) noexcept nogil:
    if sample is double:
        store(to, lanes)
    else:
        store(<float*>to, <Lane[float]>lanes)


cdef inline double as_own(bint wide, double value) noexcept nogil:
    return value if wide else <double><float>value


cdef inline Lane[any_sample] load_at(const any_sample* p, Py_ssize_t i, const Type* types, int role) noexcept nogil:
    """Lanes from element i of an array; mixed ones tell their types."""
    if any_sample is mixed:
        return load_as(types[role], p, i)
    else:
        return load(p + i)


cdef inline Py_ssize_t size_at(const any_sample* p, const Type* types, int role) noexcept nogil:
    """Bytes of an element."""
    if any_sample is mixed:
        return size_of(types[role])
    else:
        return sizeof(any_sample)


cdef inline Run channel_run(
    const Job* job, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i, Py_ssize_t n, bint down
) noexcept nogil:
    cdef Run run
    run.x = channel_place(job, &job.x, o, c, i, n, down)
    run.dy = channel_place(job, &job.dy, o, c, i, n, down)
    run.residual = channel_place(job, &job.residual, o, c, i, n, down)
    run.kept = channel_place(job, &job.kept, o, c, i, n, down)
    run.signs = channel_place(job, &job.signs, o, c, i, n, down)
    run.g = channel_place(job, &job.g, o, c, i, n, down)
    run.y = channel_place(job, &job.y, o, c, i, n, down)
    run.weights = channel_place(job, &job.weights, o, c, i, n, down)
    run.standing = 0
    return run


cdef inline Run columns_run(const Job* job, Py_ssize_t o, Py_ssize_t c, Py_ssize_t channels) noexcept nogil:
    cdef Run run
    run.x = columns_place(job, &job.x, o, c, channels)
    run.dy = columns_place(job, &job.dy, o, c, channels)
    run.residual = columns_place(job, &job.residual, o, c, channels)
    run.kept = columns_place(job, &job.kept, o, c, channels)
    run.signs = columns_place(job, &job.signs, o, c, channels)
    run.g = columns_place(job, &job.g, o, c, channels)
    run.y = columns_place(job, &job.y, o, c, channels)
    run.weights = columns_place(job, &job.weights, o, c, channels)
    run.standing = 0
    return run


cdef inline bint reads_weights(const Place* p) noexcept nogil:
    """Whether lanes of weights can be loaded from each line, or one for all of it."""
    return p.data is NULL or ((are_steps(p) or is_still(p)) and p.size == size_of(p.type))


cdef inline bint reads_rows(const Run* run, Type wanted) noexcept nogil:
    return (
        is_row(&run.x, wanted) and is_row(&run.dy, wanted) and is_row(&run.residual, wanted) and is_row(&run.kept, wanted)
        and (run.signs.data is NULL or are_steps(&run.signs)) and reads_weights(&run.weights)
    )


cdef inline bint reads_lines(const Run* run, Py_ssize_t n) noexcept nogil:
    return (
        is_line(&run.x, n) and is_line(&run.dy, n) and is_line(&run.residual, n) and is_line(&run.kept, n)
        and is_line(&run.signs, n) and is_line(&run.weights, n) and not is_still(&run.weights)
    )


cdef inline Spot spot_at(const Run* run, Py_ssize_t first) noexcept nogil:
    cdef Spot spot
    spot.x, spot.dy = address(&run.x, first), address(&run.dy, first)
    spot.residual, spot.kept = address(&run.residual, first), address(&run.kept, first)
    spot.weights = address(&run.weights, first)
    spot.signs, spot.bit = <const uint8_t*>run.signs.data, 0
    if run.signs.data is not NULL:
        spot.bit = run.signs.size + offset(&run.signs, first)
    return spot


cdef inline Spot spot_of(const Job* job, Py_ssize_t o, Py_ssize_t c, Py_ssize_t i) noexcept nogil:
    """The same of (o, c, i), where every array is direct."""
    cdef Spot spot
    spot.x, spot.dy = at(job, &job.x, o, c, i), at(job, &job.dy, o, c, i)
    spot.residual, spot.kept = at(job, &job.residual, o, c, i), at(job, &job.kept, o, c, i)
    spot.weights = at(job, &job.weights, o, c, i)
    spot.signs = <const uint8_t*>job.signs.data
    spot.bit = steps_to(job, &job.signs, o, c, i)
    return spot


cdef inline void move_spot(
    Spot* spot, Py_ssize_t x, Py_ssize_t dy, Py_ssize_t residual, Py_ssize_t kept, Py_ssize_t bits, Py_ssize_t weights
) noexcept nogil:
    """Go on by so many bytes, and bits; what is null stays unused, and moves as a number, since no pointer may."""
    spot.x += x
    spot.dy = <const char*>(<size_t>spot.dy + <size_t>dy)
    spot.kept = <const char*>(<size_t>spot.kept + <size_t>kept)
    spot.bit += bits
    if spot.weights is not NULL:
        spot.weights += weights
    if spot.residual is not NULL:
        spot.residual += residual


cdef inline int bit_of(int role) noexcept nogil:
    return 1 << role


# What a run reads of each array, BUFFER elements at a time, where it stands in no form that lanes can be loaded from.
cdef struct Buffers:
    double x[256]
    double dy[256]
    double residual[256]
    double kept[256]
    double weights[256]
    uint8_t signs[40]


cdef inline void fill_one(
    const Place* p, bint wide, Py_ssize_t first, double* buffer, Py_ssize_t to, Py_ssize_t n
) noexcept nogil:
    if p.data is NULL:
        return
    if wide:
        gather(p[0], first, n, buffer + to)
    else:
        gather(p[0], first, n, <float*>buffer + to)


cdef inline void fill(
    const Run* run, bint wide, Buffers* buffers, Py_ssize_t first, Py_ssize_t to, Py_ssize_t n
) noexcept nogil:
    """Elements `to`, ... of the buffers <- n elements from the first on, as float64 if `wide`, else as float32."""
    if not run.standing & bit_of(OF_X):
        fill_one(&run.x, wide, first, buffers.x, to, n)
    if not run.standing & bit_of(OF_DY):
        fill_one(&run.dy, wide, first, buffers.dy, to, n)
    if not run.standing & bit_of(OF_RESIDUAL):
        fill_one(&run.residual, wide, first, buffers.residual, to, n)
    if not run.standing & bit_of(OF_KEPT):
        fill_one(&run.kept, wide, first, buffers.kept, to, n)
    if not run.standing & bit_of(OF_WEIGHTS):
        fill_one(&run.weights, wide, first, buffers.weights, to, n)
    if run.signs.data is not NULL:
        gather_bits(run.signs, first, n, buffers.signs + to // 8)


cdef inline Spot buffered_spot(const Run* run, Buffers* buffers, Py_ssize_t first) noexcept nogil:
    """Where lanes from element `first` on, with which the buffers were filled, are loaded from."""
    cdef Spot spot
    spot.x, spot.dy, spot.kept = <const char*>buffers.x, <const char*>buffers.dy, <const char*>buffers.kept
    spot.signs, spot.bit = buffers.signs, 0
    spot.residual = spot.weights = NULL
    if run.residual.data is not NULL:
        spot.residual = <const char*>buffers.residual
    if run.weights.data is not NULL:
        spot.weights = <const char*>buffers.weights
    if run.standing & bit_of(OF_X):
        spot.x = address(&run.x, first)
    if run.standing & bit_of(OF_DY):
        spot.dy = address(&run.dy, first)
    if run.standing & bit_of(OF_RESIDUAL):
        spot.residual = address(&run.residual, first)
    if run.standing & bit_of(OF_KEPT):
        spot.kept = address(&run.kept, first)
    if run.standing & bit_of(OF_WEIGHTS):
        spot.weights = address(&run.weights, first)
    return spot


cdef inline void move_buffered(Spot* spot, bint wide, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t bytes = n * (8 if wide else 4)
    move_spot(spot, bytes, bytes, bytes, bytes, n, bytes)


cdef inline bint summed_in(const Job* job, bint wide, Py_ssize_t c) noexcept nogil:
    """Whether a channel is to be summed next in float64, or in float32."""
    return <uint8_t>(job.states[c] - (IN_DOUBLE if wide else ABOUT_SAMPLES)) < 2


cdef inline bint are_equal(const uint8_t* bytes, Py_ssize_t n) noexcept nogil:
    """Whether n >= 1 bytes are all the same."""
    return memcmp(bytes, bytes + 1, n - 1) == 0


cdef inline Py_ssize_t count_summed(const Job* job, bint wide, Py_ssize_t c0, Py_ssize_t n) noexcept nogil:
    """How many of n channels are to be summed next in float64, or in float32."""
    cdef Py_ssize_t c, count = 0
    if are_equal(job.states + c0, n):
        return n if summed_in(job, wide, c0) else 0
    for c in range(c0, c0 + n):
        count += summed_in(job, wide, c)
    return count
