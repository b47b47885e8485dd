"""The kernels of one instruction set: compiled for each from this one source, and entered by planner.pyx."""

from cpython.pycapsule cimport PyCapsule_New

from cpubn.backends.compiled.apply cimport apply_stretch
from cpubn.backends.compiled.blocks cimport apply_block
from cpubn.backends.compiled.channels cimport (
    close_channels, move_running, narrow_vector, prepare, scale_by_rstd, widen_vector,
)
from cpubn.backends.compiled.chunks cimport Sums, sum_span
from cpubn.backends.compiled.job cimport *
from cpubn.backends.compiled.lanes cimport *
from cpubn.backends.compiled.pivots cimport add_places, find_pivots, find_row_pivots
from cpubn.backends.compiled.signs cimport pack_some
from cpubn.backends.compiled.sums cimport add_channels, add_rows, add_weighted

cdef Kernels kernels
kernels.scratch = (sizeof(Sums) + 63) // 64 * 64
kernels.formula_of = formula_of
kernels.prepare = prepare
kernels.find_pivots = find_pivots
kernels.sum_span = sum_span
kernels.close = close_channels
kernels.apply = apply_block
kernels.widen_vector = widen_vector
kernels.narrow_vector = narrow_vector
kernels.move_running = move_running
kernels.scale_by_rstd = scale_by_rstd
kernels.loops[0] = Loops(
    <places_function>add_places[float], <channels_function>add_channels[float],
    <row_pivots_function>find_row_pivots[float], <rows_function>add_rows[float], <weighted_function>add_weighted[float],
    <run_function>apply_stretch[float], <signs_function>pack_some[float],
)
kernels.loops[1] = Loops(
    <places_function>add_places[half], <channels_function>add_channels[half],
    <row_pivots_function>find_row_pivots[half], <rows_function>add_rows[half], NULL,
    <run_function>apply_stretch[mixed], <signs_function>pack_some[half],
)
kernels.loops[2] = Loops(
    <places_function>add_places[bfloat], <channels_function>add_channels[bfloat],
    <row_pivots_function>find_row_pivots[bfloat], <rows_function>add_rows[bfloat], NULL,
    <run_function>apply_stretch[mixed], <signs_function>pack_some[bfloat],
)
kernels.loops[3] = Loops(
    <places_function>add_places[double], <channels_function>add_channels[double],
    <row_pivots_function>find_row_pivots[double], <rows_function>add_rows[double], <weighted_function>add_weighted[double],
    <run_function>apply_stretch[double], <signs_function>pack_some[double],
)
kernels.loops[MIXED].apply = <run_function>apply_stretch[mixed]
if HALVES_HAVE_LOOPS:
    kernels.loops[1].apply = <run_function>apply_stretch[half]
    kernels.loops[2].apply = <run_function>apply_stretch[bfloat]

# As maths/activations.py has them, or these kernels are out of date.
activations = NAMES.decode().split(), NAMES_OF_CLIPS.decode().split(), NAMES_BY_OUTPUT.decode().split()
table = PyCapsule_New(&kernels, "cpubn.Kernels", NULL)
