"""numba.cuda as it is found here: Numba's own, the numba-cuda package in its place, or Numba's simulator.

What differs between them stands in this file alone. The simulator runs kernels as Python, on NumPy's scalars.
"""

import ctypes
import functools
import math
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numba import config, cuda

from cpubn.backends.interface import name_of

# The interface's number of the default stream, as CuPy has it.
LEGACY = 1
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_uint
# An attribute of a pointer.
DEVICE_ORDINAL = 9
# Of the driver's errors.
NOT_INITIALIZED, INVALID_CONTEXT = 3, 201
SIMULATED = bool(config.ENABLE_CUDASIM)

# What kernels compute with and where it stands, for which Python has no types.
Value: TypeAlias = Any  # a number
Flat: TypeAlias = Any  # a flat array
Function = TypeVar("Function", bound=Callable[..., Any])


class Kernel(Protocol):
    """What numba.cuda makes of a function: launched as kernel[blocks, threads](*arguments)."""

    def __getitem__(self, sizes: tuple[int, int], /) -> Callable[..., None]: ...


def launched(function: Callable[..., None]) -> Kernel:
    """What the host launches."""
    made: Kernel = cuda.jit(function)
    return made


def device(function: Function) -> Function:
    """What kernels call."""
    made: Function = function if SIMULATED else cuda.jit(device=True)(function)
    return made


if SIMULATED:
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray as DeviceNDArray

    functions: Any = np  # math's raise where these and a GPU give infinity or NaN

    def erf_of(z: Value) -> Value:
        return z.dtype.type(math.erf(z))

    erf: Callable[[Value], Value] = erf_of

    def fma(a: Value, b: Value, c: Value) -> Value:
        """a * b + c, exactly and then rounded once where a and b are float32."""
        return a.dtype.type(np.longdouble(a) * np.longdouble(b) + np.longdouble(c))

    def product_of(real: Any) -> Callable[[Value, Value], Value]:
        return lambda a, b: a * b

else:
    from numba.cuda import libdevice
    from numba.cuda.cudadrv.devicearray import DeviceNDArray
    from numba.cuda.cudadrv.driver import CudaAPIError, MemoryPointer, OwnedPointer, driver

    functions, erf = math, math.erf

    @device
    def fma(a: Value, b: Value, c: Value) -> Value:
        return cuda.fma(a, b, c)

    @device
    def single_product(a: Value, b: Value) -> Value:
        return libdevice.fmul_rn(a, b)

    @device
    def double_product(a: Value, b: Value) -> Value:
        return libdevice.dmul_rn(a, b)

    def product_of(real: Any) -> Callable[[Value, Value], Value]:
        """A product that is rounded: `a * b` may become one instruction with an addition that follows."""
        return single_product if real is np.float32 else double_product


exp: Callable[[Value], Value] = functions.exp
expm1: Callable[[Value], Value] = functions.expm1
log1p: Callable[[Value], Value] = functions.log1p
tanh: Callable[[Value], Value] = functions.tanh
sqrt: Callable[[Value], Value] = functions.sqrt


def absence() -> str | None:
    """Why no GPU can be used, or None."""
    if SIMULATED or cuda.is_available():
        return None
    try:
        cuda.detect()
        cuda.current_context()
    except Exception as error:  # a driver too old, no device
        return " ".join(f"Numba finds no GPU: {error}".split())
    return "Numba finds no GPU, or not the CUDA toolkit"


def interface_of(array: Any) -> dict[str, Any]:
    """The array interface of an array of numba.cuda."""
    if SIMULATED:
        return {**array._ary.__array_interface__, "stream": array.stream or None}
    # Its property of that name takes 7 us.
    address = array.device_ctypes_pointer.value or 0
    described = {"shape": array.shape, "strides": array.strides, "typestr": array.dtype.str, "data": (address, False)}
    return {**described, "stream": None if array.stream == 0 else int(array.stream)}


def stream_of(array: Any, interface: dict[str, Any]) -> int:
    """The stream on which an array is made; of torch, whose interface names none, the current one. 0: the default."""
    if interface.get("stream") is not None:
        return 0 if interface["stream"] == LEGACY else int(interface["stream"])
    if type(array).__module__.partition(".")[0] == "torch":
        return int(sys.modules["torch"].cuda.current_stream(array.device).cuda_stream)
    return 0


def device_of(address: int) -> int:
    """The number of the GPU whose memory that is."""
    if SIMULATED or _is_alone() or not address:
        return 0
    cuda.current_context()
    number = ctypes.c_int()
    look = _driver_function("cuPointerGetAttribute", _POINTER, _NUMBER, _POINTER)
    if look(ctypes.addressof(number), DEVICE_ORDINAL, address):
        raise ValueError("its address must be that of memory on a GPU")
    return number.value


def new(size: int, device: int) -> tuple[Any, int]:
    """So many bytes of memory, and their address."""
    if SIMULATED:
        memory = np.empty(size, np.uint8)
        return memory, memory.ctypes.data
    with on(device):
        memory = cuda.current_context().memalloc(size)
    return memory, int(memory.device_ctypes_pointer.value)


def argument(flat: Any) -> Any:
    """What the simulator hands a kernel as it is; of an array of NumPy it makes a copy each time that it is given."""
    return DeviceNDArray(flat)


def array_of(addresses: Any, owner: Any, stream: int, device: int) -> Any:
    """The memory of an owner as an array of numba.cuda, without a copy."""
    if SIMULATED:
        return DeviceNDArray(addresses, stream)
    if name_of(addresses.dtype) == "bfloat16":  # Numba could not copy it to the host
        addresses = addresses.view("V2")
    interface = {**addresses.__array_interface__, "stream": stream or None}
    with on(device):
        if not addresses.size:
            return cuda.device_array(addresses.shape, addresses.dtype, stream=_stream(stream))
        memory = getattr(owner, "memory", owner)  # of a block
        if (
            isinstance(memory, (MemoryPointer, OwnedPointer))
            and memory.device_ctypes_pointer.value == interface["data"][0]
        ):
            data = MemoryPointer(memory.context, memory.device_pointer, memory.size, owner)
            return DeviceNDArray(addresses.shape, addresses.strides, addresses.dtype, _stream(stream), data)
        return cuda.from_cuda_array_interface(interface, owner=owner, sync=False)


def to_host(addresses: Any, owner: Any, stream: int, device: int) -> Any:
    return array_of(addresses, owner, stream, device).copy_to_host().view(addresses.dtype)


def to_device(array: Any, device: int | None) -> Any:
    """A copy, complete on return; on the current device for None."""
    with nullcontext() if device is None else on(device):
        made = cuda.to_device(array)
        if not SIMULATED:
            cuda.default_stream().synchronize()  # a copy from memory that is not pinned returns before it is there
        return made


def wait(stream: int, other: int, device: int) -> None:
    """What is launched on one stream from now on runs after what was launched on the other."""
    if not SIMULATED:
        with on(device):
            event = cuda.event(timing=False)
            event.record(_stream(other))
            event.wait(_stream(stream))


def function_of(kernel: Any, types: tuple[Any, ...]) -> int:
    """The driver's handle of a kernel compiled for arguments of those types, on the current device."""
    handle = kernel.compile(types)._codelibrary.get_cufunc().handle
    return int(getattr(handle, "value", handle))  # of ctypes, or of CUDA's bindings for Python in numba-cuda


def enter(function: int, blocks: int, threads: int, stream: int, arguments: Any) -> None:
    """cuLaunchKernel, in a thread that may not have entered the device's context yet."""
    launch = _driver_function("cuLaunchKernel", _POINTER, *(_NUMBER,) * 7, *(_POINTER,) * 3)
    failure = launch(function, blocks, 1, 1, threads, 1, 1, 0, stream, arguments, None)
    if failure in (NOT_INITIALIZED, INVALID_CONTEXT):
        cuda.current_context()
        failure = launch(function, blocks, 1, 1, threads, 1, 1, 0, stream, arguments, None)
    if failure:
        raise CudaAPIError(failure, f"cuLaunchKernel failed with error {failure}")


@functools.cache
def _driver_function(name: str, *types: Any) -> Any:
    """A function of the driver, without what Numba does around it."""
    library = getattr(driver, "lib", None)  # numba-cuda keeps none
    return ctypes.CFUNCTYPE(ctypes.c_int, *types)(
        (name, library or ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1"))
    )


def _stream(handle: int) -> Any:
    return cuda.external_stream(handle) if handle and not SIMULATED else 0


def on(device: int) -> AbstractContextManager[Any]:
    """What is done inside is done on that device."""
    return _HERE if SIMULATED or _is_alone() else cuda.gpus[device]


@functools.cache
def _is_alone() -> bool:
    return len(cuda.gpus) == 1


_HERE: AbstractContextManager[Any] = nullcontext()
