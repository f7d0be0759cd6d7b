"""What is planned for: devices, cores, memory; and how the engine would name and number it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from multigpu_inference.engine.devices import cpu_devices


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine, real or planned for.

    Attributes:
        gpus: GPUs; 0: all stages run on the CPU.
        devices: GPUs, or where there are none the devices that stages on the CPU share: one, unless more were asked for.
        cores: CPU cores.
        memory_bytes: Main memory that is free.
        devices_at_hand: As many as measurements can use.
        cores_at_hand: The same.
    """

    gpus: int
    devices: int
    cores: int
    memory_bytes: int
    devices_at_hand: int
    cores_at_hand: int

    def names(self, num_replicas: int, stages: int) -> tuple[str, ...]:
        """The devices that the engine would place so many replicas on."""
        return tuple(f"cuda:{i}" for i in range(self.gpus)) or cpu_devices(num_replicas, stages)

    def device(self, name: str) -> str:
        """Which device of this machine a name stands for: CPU devices are numbered on beyond those that are there."""
        if self.gpus:
            return name
        number = int(name.partition(":")[2] or 0) % self.devices
        return f"cpu:{number}"


def free_memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Main memory that a start of the container could take: what the machine has free, and the container's limit leaves."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, max(0, int(limit) - int((cgroup / "memory.current").read_text())))
    except (OSError, ValueError):
        pass  # no second-version control group: no limit to read
    return free


def kind(device: str) -> str:
    """`cuda` or `cpu`."""
    return device.partition(":")[0]
