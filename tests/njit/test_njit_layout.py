"""What cached code knows of cpubn.h: it lives on in users' caches, and must stay as it is."""

import ctypes

import ctable
import pytest
from conftest import need_backend, need_library

need_library("numba", "numba")
import llvmlite.binding as llvm  # noqa: E402

from cpubn.njit import call, symbols  # noqa: E402


def test_names_stay():
    """A name that goes away ends every process whose cache calls it; what one means changes with a new version."""
    names = "moments", "normalize", "train_forward", "train_backward", "frozen", "order"
    assert names == symbols.NAMES
    assert [symbols.symbol(name) for name in names] == [f"cpubn_njit_{name}_1" for name in names]
    assert symbols.TABLE[: len(ctable.FUNCTIONS)] == ctable.FUNCTIONS
    symbols.register()
    for version in symbols.VERSIONS:
        assert all(llvm.address_of_symbol(symbols.symbol(name, version)) for name in names)


def test_what_stands_in_for_a_function():
    need_backend("cython")
    stub, absent = symbols._stub(), symbols._addresses()["absent"]
    for address in (stub, absent):
        assert ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(address)(None) == symbols.ABSENT


@pytest.mark.parametrize(
    ("here", "there"), [(call.CALL, ctable.CCall), (call.AXES, ctable.CAxes), (call.ARRAY, ctable.CArray)]
)
def test_structs(here, there):
    llvm.initialize_native_target()
    data = llvm.Target.from_default_triple().create_target_machine().target_data
    names = [name for name, *_ in there._fields_]
    assert here.get_abi_size(data) == ctypes.sizeof(there)
    offsets = [here.get_element_offset(data, k) for k in range(len(names))]
    assert offsets == [getattr(there, name).offset for name in names]
