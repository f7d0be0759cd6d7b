"""What an error says of the device: out of memory, lost for this process, or the script's own affair.

    error, and what it was raised from ──► by class name and text ──► OUT_OF_MEMORY   fewer items, or none beside it, may fit
                                                                      STICKY          only a new process heals it
                                                                      SCRIPT          the next request may do well

Pure: torch is not imported, and torch tells its errors apart by their texts only. A text counts only in an error that a library
of the device raises, and where it begins as those do: a script that quotes its client's words must not lose its device by them.

Which ones stick: the CUDA runtime's documentation says of each code (`cudaError`, most of 700 to 727) whether the process must
be ended after it, because every later call fails as well. What of CUDA's is not known here counts as sticky: a process that is
replaced for nothing costs seconds, one that is kept with a lost device fails all its requests. Of its libraries' own errors
"execution failed", "internal error" and "mapping error" are what follows a kernel that was lost before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

_LONGEST_CHAIN = 10


class DeviceErrorKind(Enum):
    """What is to be done about an error."""

    OUT_OF_MEMORY = "out of memory"
    STICKY = "sticky"
    SCRIPT = "the script's"


# How they begin: torch's ("CUDA error: device-side assert triggered", "CUDA error: CUBLAS_STATUS_…", "cuDNN error: …"),
# Triton's, CuPy's, ONNX Runtime's, the kernel log's.
_FROM_THE_DEVICE = re.compile(
    r"(CUDA|cuDNN|cuBLAS|cuFFT|cuSOLVER|cuSPARSE|NCCL)( runtime| driver| out of memory| failure| error)"
    r"|Triton Error \[CUDA\]|cudaError[A-Z]|CUDA_ERROR_|(CUBLAS|CUDNN|CUFFT|CUSOLVER|CUSPARSE)_|NVML_SUCCESS|NVRM: |Xid \(",
    re.IGNORECASE,
)
# These stick, whatever else is said.
_STICKY = re.compile(
    r"device-side assert|illegal (memory access|instruction|address)|misaligned address|unspecified launch failure"
    r"|uncorrectable|\bXid\b|hardware stack error|invalid program counter|global/shared address space|launch timed out"
    r"|busy or unavailable",
    re.IGNORECASE,
)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|out_of_memory|MEMORY_ALLOCATION"
    # A library's first call on a device allocates its workspace, and says no more than this where that does not fit. After a
    # lost device it says the same; then the second attempt says what has happened.
    r"|_(NOT_INITIALIZED|ALLOC_FAILED|\w*ALLOCATION_FAILED)"
    # Torch's allocator asks NVML how much is free when it runs out, and fails in that where a container hides NVML.
    r"|NVML_SUCCESS.*INTERNAL ASSERT FAILED",
    re.IGNORECASE,
)
# Calls that were refused before anything ran: the device is as it was.
_REFUSED_CALL = re.compile(
    r"invalid (argument|configuration argument|device ordinal|device function|resource handle)"
    r"|too many (resources requested for launch|blocks in cooperative launch)"
    r"|no kernel image is available|(operation|feature) (is )?not supported|capturing|captured|peer (access|mapping)"
    r"|_(INVALID_VALUE|INVALID_ARG|BAD_PARAM|NOT_SUPPORTED|ARCH_MISMATCH|INVALID_TYPE|INVALID_SIZE)",
    re.IGNORECASE,
)
_ON_THE_CPU = re.compile(r"(\[enforce fail at [^]]*\] [^:]*)?DefaultCPUAllocator: (can't allocate|not enough) memory")


def device_error_kind(error: BaseException) -> DeviceErrorKind:
    """What an error is, by itself and by what it was raised from.

    A lost device is lost whatever a script has made of the error. Memory that a script ran out of is its affair once it has
    dealt with that itself, so only what an error was explicitly raised from (`raise … from`) counts beside it.
    """
    if any(_kind_of(each) is DeviceErrorKind.STICKY for each in _chain(error, with_context=True)):
        return DeviceErrorKind.STICKY
    if any(_kind_of(each) is DeviceErrorKind.OUT_OF_MEMORY for each in _chain(error, with_context=False)):
        return DeviceErrorKind.OUT_OF_MEMORY
    return DeviceErrorKind.SCRIPT


def _chain(error: BaseException, *, with_context: bool) -> Iterator[BaseException]:
    each: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if each is None:
            return
        yield each
        each = each.__cause__ or (each.__context__ if with_context else None)


def _kind_of(error: BaseException) -> DeviceErrorKind:
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"}:  # torch's and CuPy's; Python's and NumPy's
        return DeviceErrorKind.OUT_OF_MEMORY
    if not isinstance(error, RuntimeError) and not any(name.startswith(("CUDA", "cuda", "Cuda")) for name in names):
        return DeviceErrorKind.SCRIPT
    text = str(error)
    if _ON_THE_CPU.match(text):
        return DeviceErrorKind.OUT_OF_MEMORY
    # Torch raises nothing else of that class, whatever the kind of device and its words are.
    if "AcceleratorError" not in names and not _FROM_THE_DEVICE.match(text):
        return DeviceErrorKind.SCRIPT
    # The first line says what happened; those behind it advise, and name calls and files.
    said = text.partition("\n")[0]
    if _STICKY.search(said):
        return DeviceErrorKind.STICKY
    if _OUT_OF_MEMORY.search(said):
        return DeviceErrorKind.OUT_OF_MEMORY
    return DeviceErrorKind.SCRIPT if _REFUSED_CALL.search(said) else DeviceErrorKind.STICKY
