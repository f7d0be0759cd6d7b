"""Objects as blobs: pickle 5 with the bytes of arrays and tensors beside it, and tensors brought to the CPU on the way.

    pool worker: input_fn's result ──encode──► engine (unopened) ──► replica worker: decode, predict_fn
    replica worker: prediction ──encode──► engine (unopened) ──► pool worker: decode, output_fn

The first blob is the pickle, those after it are its out-of-band buffers. A tensor arrives with the same values, shape
and type on the CPU, without its gradient; where it belongs on a device is `structure`'s matter. Only workers use this.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multigpu_inference.ipc import Blob

if TYPE_CHECKING:
    import torch

# A buffer this small costs less within the pickle than as a blob of its own.
_INLINE_BYTES = 4096


class _Pickler(pickle.Pickler):
    """Knows tensors; counts those that it met on a device other than the CPU."""

    def __init__(self, file: io.BytesIO, buffers: list[Blob]) -> None:
        super().__init__(file, protocol=5, buffer_callback=lambda buffer: self._keep_inline(buffer, buffers))
        self.device_tensors = 0

    @staticmethod
    def _keep_inline(buffer: pickle.PickleBuffer, buffers: list[Blob]) -> bool:
        raw = buffer.raw()
        if raw.nbytes < _INLINE_BYTES:
            return True
        buffers.append(raw)
        return False

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")  # a script without torch has no tensors
        if torch is None or type(obj) not in (torch.Tensor, torch.nn.Parameter):
            return NotImplemented
        if obj.device.type != "cpu":
            self.device_tensors += 1
        if obj.layout is not torch.strided or obj.is_quantized:
            return NotImplemented
        dense = obj.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
        # Not reshape(-1): a tensor of one element counts as contiguous whatever its stride is, and keeps it.
        raw = dense.as_strided((dense.numel(),), (1,)).view(torch.uint8).numpy()
        return _tensor, (pickle.PickleBuffer(raw), str(obj.dtype).removeprefix("torch."), tuple(obj.shape))


def _tensor(buffer: Blob, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor over a buffer, without a copy."""
    import torch

    element_type = getattr(torch, dtype)
    if memoryview(buffer).nbytes == 0:
        return torch.empty(shape, dtype=element_type)
    return torch.frombuffer(buffer, dtype=torch.uint8).view(element_type).reshape(shape)


def encode(value: Any) -> list[Blob]:
    """Turn an object into blobs, the pickle first.

    Raises:
        Exception: whatever pickling one of its parts raises.
    """
    return _encode(value)[0]


def count_device_tensors(value: Any) -> int:
    """How many tensors on a device other than the CPU stand anywhere in an object, within objects of any class too."""
    return _encode(value)[1]


def _encode(value: Any) -> tuple[list[Blob], int]:
    file, buffers = io.BytesIO(), list[Blob]()
    pickler = _Pickler(file, buffers)
    pickler.dump(value)
    return [file.getvalue(), *buffers], pickler.device_tensors


def decode(blobs: Sequence[Blob]) -> Any:
    """Make the object again; arrays and tensors lie over the blobs, so byte arrays make them writable."""
    return pickle.loads(blobs[0], buffers=blobs[1:])
