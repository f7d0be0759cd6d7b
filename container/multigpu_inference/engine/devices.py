"""Which devices there are, without torch in the engine; and the refusal to serve silently on the CPU.

A machine without a GPU serves on the CPU. Where there is a GPU, or one was asked for, and torch cannot use it for
whatever reason, the start is refused with what the driver and torch say of CUDA: an endpoint on a GPU instance that
computes on the CPU costs the same and is found out late.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

from multigpu_inference.errors import DeviceError
from multigpu_inference.messages import CudaReport

# One order of numbering for the probe, for every replica, and for the tools that people look with.
DEVICE_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def gpu_is_present(root: Path = Path("/")) -> bool:
    """Whether the kernel shows an NVIDIA GPU to this container."""
    return any(root.glob("dev/nvidia[0-9]*")) or any(root.glob("proc/driver/nvidia/gpus/*"))


def cuda_devices(report: CudaReport) -> tuple[str, ...]:
    """The GPUs that torch can use.

    Raises:
        DeviceError: where it can use none.
    """
    if report.count > 0:
        return tuple(f"cuda:{i}" for i in range(report.count))
    built = f"CUDA {report.torch_cuda}" if report.torch_cuda else "the CPU"
    raise DeviceError(
        f"torch cannot use the GPU: torch {report.torch_version} is built for {built}, the driver is for "
        f"CUDA {report.driver_cuda or 'none'} ({report.reason}); MULTIGPU_DEVICES=cpu serves on the CPU on purpose"
    )


def driver_cuda_version() -> str | None:
    """The CUDA version that the installed driver is for, such as "13.0"; None where there is no driver."""
    try:
        version = ctypes.c_int(0)
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except OSError:
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def visible_to(devices: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> tuple[str, tuple[str, ...]]:
    """How a replica worker is shown its devices and no others.

    Args:
        devices: One per stage, as the engine names them, such as `("cuda:2", "cuda:3")`.
        environ: Where `CUDA_VISIBLE_DEVICES` stands if this container sees only some of the machine's GPUs.

    Returns:
        The worker's `CUDA_VISIBLE_DEVICES`, and its devices as it sees them: `("2,3", ("cuda:0", "cuda:1"))`.
    """
    gpus = list(dict.fromkeys(d for d in devices if d.startswith("cuda:")))
    outer = [name.strip() for name in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    numbers = [int(gpu.removeprefix("cuda:")) for gpu in gpus]
    visible = ",".join(outer[n] if n < len(outer) else str(n) for n in numbers)
    return visible, tuple(f"cuda:{gpus.index(d)}" if d in gpus else d for d in devices)


def cpu_devices(num_replicas: int, stages: int) -> tuple[str, ...]:
    """Names for the CPU's share of each replica, enough for every stage to have one of its own."""
    return tuple(f"cpu:{i}" for i in range(max(num_replicas, stages)))
