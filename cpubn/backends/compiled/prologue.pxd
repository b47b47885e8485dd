# g, the gradient of what was activated, of dy, that of the output: the first thing that a backward pass does with lanes.

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport load_at


cdef inline Lane[any_sample] gradient_of(
    const Job* job, const any_sample* x, const Spot* spot, Py_ssize_t i, const Type* types, Lane[any_sample] z
) noexcept nogil:
    """g of the lanes from element i of a spot on, whose z is given but for the residual; x tells their type."""
    cdef Lane[any_sample] g = load_at(<const any_sample*>spot.dy, i, types, OF_DY)
    if job.prologue == BY_SIGNS:
        if job.low == 0:
            return signed_by(bits_at(spot.signs, spot.bit + i), g, Lane[any_sample](0.0))
        return signed_by(bits_at(spot.signs, spot.bit + i), g, g * Lane[any_sample](job.low))
    if job.prologue == BY_OUTPUT:
        z = load_at(<const any_sample*>spot.kept, i, types, OF_KEPT)
    elif spot.residual is not NULL:
        z = z + load_at(<const any_sample*>spot.residual, i, types, OF_RESIDUAL)
    return g * derive(job.activation, z, job.low, job.high)
