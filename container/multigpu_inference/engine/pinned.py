"""Arenas as pinned memory: a GPU's copy engine takes a picture from where a pool worker wrote it, while kernels run.

Runs in a replica worker that has a GPU. Memory that is not pinned is first copied by the driver, on the thread that asks, to
a buffer that is. Only an arena's beginning is pinned, where nearly every request ends, and only so much in all: pinned pages
cannot be given back to the machine, which `Arena.release` does with what lies behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections.abc import Callable
from typing import Any

from multigpu_inference import log
from multigpu_inference.arena import KEPT_BYTES, Arena
from multigpu_inference.ipc import Slice

# All replicas pin the same pages; this is what a machine gives up for it at most, beside what is in the arenas anyway.
MAX_BYTES = 2 << 30
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for all of this process's devices


class PinnedArenas:
    """Pins arenas as they are opened, until the bound is reached; those beyond it are copied from as ordinary memory."""

    def __init__(self, cudart: Any, clear_error: Callable[[], object]) -> None:
        """Pin nothing yet.

        Args:
            cudart: The CUDA runtime, as `torch.cuda.cudart()` gives it.
            clear_error: Takes back the runtime's last error, for which torch has no call.
        """
        self._cudart = cudart
        self._clear_error = clear_error
        self.bytes = 0
        self._counting = threading.Lock()  # finalizers run on whatever thread drops an arena last
        self._failed = False

    def pin(self, arena: Arena) -> None:
        """Pin an arena's beginning for as long as this process has it."""
        if self._failed or self.bytes + KEPT_BYTES > MAX_BYTES:
            return
        arena.buffer(0, KEPT_BYTES).release()  # the file may be empty yet; pinning needs its pages
        memory = arena.array(Slice(0, KEPT_BYTES))
        address = ctypes.addressof(memory)
        error = int(self._cudart.cudaHostRegister(address, KEPT_BYTES, _PORTABLE))
        if error:
            # The error stays behind in this thread, and the next kernel's launch would be taken for what failed.
            self._clear_error()
            self._failed = True  # a limit of the machine, such as locked memory: the same for every other arena
            log.event("arena_not_pinned", cuda_error=error, costs="copies to the GPU are slower and do not overlap")
            return
        with self._counting:
            self.bytes += KEPT_BYTES
        # The array keeps the mapping until it is unpinned. An arena outlives the tasks that use it, and a task's copies are
        # done before it is: no copy can be under way then.
        weakref.finalize(arena, self._unpin, address, memory).atexit = False  # the driver sees to that itself

    def _unpin(self, address: int, memory: Any) -> None:
        self._cudart.cudaHostUnregister(address)
        with self._counting:
            self.bytes -= KEPT_BYTES


def clear_last_error() -> None:
    """Call the runtime's `cudaGetLastError`, out of the library that torch has loaded into this process.

    Where it cannot be found, a launch that torch checks takes the error: it is for nothing, and raises.
    """
    import torch

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).cudaGetLastError()
        return
    for name in _runtime_libraries():
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(name).cudaGetLastError()
            return
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device="cuda")


def _runtime_libraries() -> list[str]:
    """The CUDA runtimes that are loaded in this process: one that is loaded a second time would be another one."""
    with open("/proc/self/maps") as maps:
        return sorted({line.split()[-1] for line in maps if "libcudart" in line})
