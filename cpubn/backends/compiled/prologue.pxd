# g, the gradient of what was activated, of dy, that of the output: the first thing that a backward pass does with lanes.

from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *


cdef inline Lane[sample] gradient_of(
    const Job* job, const sample* x, const Spot* spot, Lane[sample] z
) noexcept nogil:
    """g of the lanes at a spot, whose z is given but for the residual; x tells their type."""
    cdef Lane[sample] g = load(<const sample*>spot.dy)
    if job.prologue == BY_SIGNS:
        if job.low == 0:
            return signed_by(bits_at(spot.signs, spot.bit), g, Lane[sample](0.0))
        return signed_by(bits_at(spot.signs, spot.bit), g, g * Lane[sample](job.low))
    if job.prologue == BY_OUTPUT:
        z = load(<const sample*>spot.kept)
    elif spot.residual is not NULL:
        z = z + load(<const sample*>spot.residual)
    return g * derive(job.activation, z, job.low, job.high)
