"""Asks torch for its GPUs, in a process of its own: the engine must neither import torch nor hold a CUDA context."""

from __future__ import annotations

import sys
import warnings

from multigpu_inference import process
from multigpu_inference.engine.devices import driver_cuda_version
from multigpu_inference.ipc import FrameSocket
from multigpu_inference.messages import CudaReport
from multigpu_inference.one_line import one_line


def report() -> CudaReport:
    """What torch and the driver say of CUDA; never raises, because a reason is wanted, not a trace."""
    driver = driver_cuda_version()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            import torch

            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        # torch tells why it cannot use a driver only in a warning
        silent = "no NVIDIA driver was found" if driver is None else "torch gives no reason"
        reason = str(said[-1].message).splitlines()[0] if said and not count else silent
        return CudaReport(count, str(torch.__version__), torch.version.cuda, driver, reason)
    except Exception as error:
        return CudaReport(0, "?", None, driver, one_line(error))


if __name__ == "__main__":
    FrameSocket(process.start_as_child(sys.argv[1:])).send(report())
