# One bit an element: on which side of an activation's kinks its output was.

from libc.string cimport memcpy

from cpubn.backends.compiled.job cimport Bounds
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.runs cimport lanes_of


cdef inline void pack_some(const sample* y, Py_ssize_t n, const Bounds* bounds, uint8_t* bits) noexcept nogil:
    """bits[j] = not (y[j] <= low or y[j] >= high), of NaN `nan`; n is a multiple of 32 but for the last ones."""
    cdef sample edge[32]
    cdef Py_ssize_t lanes = lanes_of(y), j = 0
    cdef uint32_t packed
    while j + lanes <= n:
        packed = inside(load(y + j), bounds.low, bounds.high, bounds.nan)
        memcpy(bits + j // 8, &packed, lanes // 8)
        j += lanes
    if j < n:
        memcpy(edge, y + j, (n - j) * sizeof(sample))
        packed = inside(load(<const sample*>edge), bounds.low, bounds.high, bounds.nan) & ((<uint32_t>1 << (n - j)) - 1)
        memcpy(bits + j // 8, &packed, (n - j + 7) // 8)
