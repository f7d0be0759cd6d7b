"""Memory of this process, and its peak while something runs: resident set on the CPU, the allocator's figures on a GPU."""

from __future__ import annotations

import contextlib
import gc
from pathlib import Path
from typing import Any

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # to the kernel: begin the peak of the resident set anew


def resident_bytes() -> int:
    """What this process has in memory now."""
    return _status("VmRSS")


class PeakMemory:
    """The growth of memory within a `with` block over what there was before, at its peak.

    Attributes:
        grown_bytes: Once the block has been left.
    """

    def __init__(self, device: str) -> None:
        """Watch a GPU such as `cuda:0`, or for any other device this process's resident set."""
        self._device = device
        self._before = 0
        self.grown_bytes = 0

    def __enter__(self) -> PeakMemory:
        """Begin at what there is now."""
        if self._device.startswith("cuda"):
            self._before = _cuda().memory_allocated(self._device)
            _cuda().reset_peak_memory_stats(self._device)
            return self
        gc.collect()
        self._before = resident_bytes()
        with contextlib.suppress(OSError):  # not allowed: the peak counts from the process's start, which is never too little
            _CLEAR.write_text(_RESET_PEAK)
        return self

    def __exit__(self, *_: object) -> None:
        """Read the peak."""
        on_gpu = self._device.startswith("cuda")
        peak = _cuda().max_memory_allocated(self._device) if on_gpu else _status("VmHWM")
        self.grown_bytes = max(0, peak - self._before)


def _cuda() -> Any:
    import torch

    return torch.cuda


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    return 0
