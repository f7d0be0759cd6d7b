"""A limit on the memory of this process, so that one request's input cannot take the machine's.

`RLIMIT_DATA`: it counts what a process has of its own to write to (heap, buffers, stacks). `RLIMIT_AS` would also count address
space that is only reserved, as torch and the C library's threads do by the gigabyte, and the arenas of requests, which come and
go and are shared. Beyond it the C library has no more memory, which Python, NumPy, Pillow and torch raise as errors.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from multigpu_inference.engine.device_error import DeviceErrorKind, device_error_kind

# The words of libraries that raise errors of their own for it, Pillow and OpenCV, and of the C library.
_WORDS = ("out of memory", "insufficient memory", "cannot allocate memory", "bad_alloc")


def limit_memory(more_bytes: int) -> None:
    """Let this process have so much more than it has now; where the kernel knows no limit, none is set."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = _data_bytes() + more_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def ran_out(error: BaseException) -> bool:
    """Whether an error, or what it was raised from, says that there was no more memory."""
    said = str(error.__cause__ or error).lower()
    return device_error_kind(error) is DeviceErrorKind.OUT_OF_MEMORY or any(words in said for words in _WORDS)


def _data_bytes() -> int:
    """What counts towards the limit now."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) << 10
