"""Memory of GPUs before and after a model is loaded. Runs in a profiler's process; on the CPU there is nothing to know."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from multigpu_inference.engine.stage import Stage
from multigpu_inference.errors import DeviceError
from multigpu_inference.one_line import one_line

# How deep a stage is looked into for networks: `stage.network`, `stage.model.network`, a list of them.
_DEPTH = 3


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The GPUs of this process.

    Attributes:
        devices: Their names.
        context_bytes: What this process took of the first one before anything was loaded.
        device_bytes: How much the smallest of them has.
    """

    devices: tuple[str, ...]
    context_bytes: int = 0
    device_bytes: int = 0

    @classmethod
    def initialise(cls, devices: tuple[str, ...]) -> DeviceMemory:
        """Take the devices before the script can, as a replica worker does; `DeviceError` where that fails."""
        gpus = tuple(dict.fromkeys(device for device in devices if device.startswith("cuda:")))
        if not gpus:
            return cls(())
        import torch

        try:
            before = [torch.cuda.mem_get_info(gpu) for gpu in gpus]
            torch.zeros(1, device=gpus[0])
            free, total = torch.cuda.mem_get_info(gpus[0])
        except Exception as error:
            raise DeviceError(f"CUDA cannot be initialised for {', '.join(gpus)}: {one_line(error)}") from error
        # What others have of it counts as well, once: it is gone for every replica.
        context = total - free - torch.cuda.memory_reserved(gpus[0])
        return cls(gpus, context, min(size for _, size in before))

    def allocated(self, device: str) -> int:
        """Memory in use on a GPU; 0 for any other device."""
        if device not in self.devices:
            return 0
        import torch

        return int(torch.cuda.memory_allocated(device))

    def synchronise(self, result: Any) -> Any:
        """Wait for all GPUs, and hand on what a call gave."""
        for device in self.devices:
            import torch

            torch.cuda.synchronize(device)
        return result


def model_bytes(stage: Stage, device: str) -> int:
    """Memory of the networks and tensors that a stage holds on a GPU; 0 for any other device."""
    if not device.startswith("cuda"):
        return 0
    tensors = {id(tensor): tensor for tensor in _tensors(stage, _DEPTH)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values() if tensor.is_cuda)


def _tensors(holder: Any, depth: int) -> Iterator[Any]:
    torch = sys.modules["torch"]
    if isinstance(holder, torch.Tensor):
        yield holder
    elif isinstance(holder, torch.nn.Module):
        yield from holder.parameters()
        yield from holder.buffers()
    elif depth:
        parts = holder if isinstance(holder, list | tuple) else holder.values() if isinstance(holder, dict) else ()
        for part in (*parts, *getattr(holder, "__dict__", {}).values()):
            yield from _tensors(part, depth - 1)
