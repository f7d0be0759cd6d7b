"""What the driver says of the GPUs: utilisation, memory, temperature, power. Nothing where there is no driver.

    thread: every 2 s NVML ──► readings ◄── the engine's loop, which never waits for the driver

Our `cuda:1` is the second GPU of `CUDA_VISIBLE_DEVICES`, or of the machine in the order of its PCI bus
(`devices.DEVICE_ORDER`), which is also NVML's. Runs in the engine, which has no CUDA: NVML takes no memory of a GPU.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multigpu_inference import log

_READ_EVERY_S = 2.0
# A driver that does not answer has nothing to say of now.
_STALE_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU; None for what it does not tell, such as the utilisation of a MIG instance.

    Attributes:
        device: As the engine calls it: `cuda:0`.
        uuid: As the driver calls it.
        utilization_ratio: Share of the last sampling period in which a kernel ran.
        memory_used_bytes: Of its memory, by all processes.
        memory_capacity_bytes: All its memory.
        temperature_celsius: Of the chip.
        power_watts: What it draws.
    """

    device: str
    uuid: str
    utilization_ratio: float | None
    memory_used_bytes: int | None
    memory_capacity_bytes: int | None
    temperature_celsius: float | None
    power_watts: float | None


class Gpus:
    """Reads the GPUs of a placement on a thread of its own."""

    def __init__(self, devices: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
        """Nothing is read before `start`.

        Args:
            devices: As the engine names them; those of the CPU are left out.
            environ: Where `CUDA_VISIBLE_DEVICES` may stand.
        """
        self._devices = tuple(device for device in devices if device.startswith("cuda:"))
        self._visible = visible_gpus(environ)
        self._read_at = float("-inf")
        self._readings: tuple[GpuReading, ...] = ()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read, where there is a GPU."""
        if self._devices and self._thread is None:
            self._thread = threading.Thread(target=self._read_all, name="gpus", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Read no more. Does not wait: a driver that hangs would keep the engine."""
        self._stopped.set()

    @property
    def readings(self) -> tuple[GpuReading, ...]:
        """The last ones, a few seconds old at most; nothing where there are none."""
        return self._readings if time.monotonic() - self._read_at < _STALE_AFTER_S else ()

    def _read_all(self) -> None:
        try:
            nvml: Any = importlib.import_module("pynvml")
            nvml.nvmlInit()
        except Exception as error:  # no such package, no driver, or one that is not for this library
            log.event("gpus_not_read", reason=f"{type(error).__name__}: {error}", costs="no GPU figures in the metrics")
            return
        try:
            handles = {device: _attempt(self._handle, nvml, device) for device in self._devices}
            missing = [device for device, handle in handles.items() if handle is None]
            if missing:
                log.event("gpus_not_read", reason=f"NVML does not know {', '.join(missing)}")
            while not self._stopped.is_set():
                self._readings = tuple(read(nvml, device, handle) for device, handle in handles.items() if handle is not None)
                self._read_at = time.monotonic()
                self._stopped.wait(_READ_EVERY_S)
        finally:
            _attempt(nvml.nvmlShutdown)

    def _handle(self, nvml: Any, device: str) -> Any:
        number = int(device.removeprefix("cuda:"))
        name = str(number) if self._visible is None else self._visible[number]
        if name.isdigit():
            return nvml.nvmlDeviceGetHandleByIndex(int(name))
        if name.startswith("MIG-"):
            return nvml.nvmlDeviceGetHandleByUUID(name)
        # CUDA takes the beginning of a name where no other GPU's begins like it, NVML only the whole.
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(name):
                return handle
        raise LookupError(name)


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """What CUDA's devices 0, 1 … are called outside, by number or name; None where all are visible under their own numbers.

    CUDA leaves out what stands behind a number that is none, such as -1.
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None or not text.strip():  # `devices.visible_to` takes an empty one for none as well
        return None
    visible: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not (name.isdigit() or name.startswith(("GPU-", "MIG-"))):
            break
        visible.append(name)
    return tuple(visible)


def read(nvml: Any, device: str, handle: Any) -> GpuReading:
    """Ask the driver for one GPU."""
    memory = _attempt(nvml.nvmlDeviceGetMemoryInfo, handle)
    utilization = _attempt(nvml.nvmlDeviceGetUtilizationRates, handle)
    milliwatts = _attempt(nvml.nvmlDeviceGetPowerUsage, handle)
    return GpuReading(
        device=device,
        uuid=_text(_attempt(nvml.nvmlDeviceGetUUID, handle) or ""),
        utilization_ratio=None if utilization is None else utilization.gpu / 100,
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_capacity_bytes=None if memory is None else int(memory.total),
        temperature_celsius=_attempt(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        power_watts=None if milliwatts is None else milliwatts / 1000,
    )


def _attempt(call: Callable[..., Any], *args: Any) -> Any:
    """What a call gives; None where the driver does not support it, or has lost the GPU."""
    try:
        return call(*args)
    except Exception:
        return None


def _text(value: Any) -> str:
    """The library gave bytes in its earlier versions."""
    return value.decode() if isinstance(value, bytes) else str(value)
