"""Objects as blobs: pickle 5 with the bytes of arrays, tensors and pictures beside it, tensors brought to the CPU on the way.

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

from multigpu_inference.ipc import Buffer

if TYPE_CHECKING:
    import torch

# A buffer this small costs less within the pickle than as a blob of its own.
_INLINE_BYTES = 4096


class _Pickler(pickle.Pickler):
    """Knows tensors and pictures. Brings tensors from their devices, all at once, while it goes on.

    Attributes:
        device_tensors: How many tensors it met on a device other than the CPU.
    """

    def __init__(self, file: io.BytesIO, buffers: list[Buffer]) -> None:
        copies: dict[int, Any] = {}  # by the buffer's identity: what a device may still be writing to
        # Not a method: this object and its own callback would keep each other, and what was pickled, until they are collected.
        super().__init__(file, protocol=5, buffer_callback=lambda buffer: _keep_inline(buffer, buffers, copies))
        self.device_tensors = 0
        self._copies = copies
        self._devices: set[Any] = set()

    def finish(self) -> None:
        """Wait until what was asked of devices is there."""
        for device in self._devices:
            sys.modules["torch"].cuda.current_stream(device).synchronize()

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")  # a script without torch has no tensors
        if torch is not None and type(obj) in (torch.Tensor, torch.nn.Parameter):
            return self._reduce_tensor(torch, obj)
        pictures = sys.modules.get("PIL.Image")
        if pictures is not None and type(obj) is pictures.Image:
            *state, data = obj.__getstate__()
            return _picture, (state, pickle.PickleBuffer(data))
        return NotImplemented

    def _reduce_tensor(self, torch: Any, obj: Any) -> Any:
        if obj.device.type != "cpu":
            self.device_tensors += 1
        if obj.layout is not torch.strided or obj.is_quantized:
            return NotImplemented
        dense = obj.detach().resolve_conj().resolve_neg().contiguous()
        host = self._begin_copy(torch, dense) if dense.is_cuda else dense.to("cpu")
        # Not reshape(-1): a tensor of one element counts as contiguous whatever its stride is, and keeps it.
        raw = pickle.PickleBuffer(host.as_strided((host.numel(),), (1,)).view(torch.uint8).numpy())
        if host is not dense and dense.is_cuda:
            self._copies[id(raw)] = raw
        return _tensor, (raw, str(obj.dtype).removeprefix("torch."), tuple(obj.shape))

    def _begin_copy(self, torch: Any, dense: Any) -> Any:
        """Have a device copy a tensor to pinned memory, and do not wait for it."""
        self._devices.add(dense.device)
        host = torch.empty(dense.shape, dtype=dense.dtype, pin_memory=True)
        return host.copy_(dense, non_blocking=True)


def _keep_inline(buffer: pickle.PickleBuffer, buffers: list[Buffer], copies: dict[int, Any]) -> bool:
    raw = buffer.raw()
    if raw.nbytes < _INLINE_BYTES and id(buffer) not in copies:
        return True
    buffers.append(raw)
    return False


def _picture(state: list[Any], data: Buffer) -> Any:
    """A Pillow image from what its own pickling keeps, its pixels beside it."""
    from PIL import Image

    picture = Image.Image()
    picture.__setstate__([*state, data])
    return picture


def _tensor(buffer: Buffer, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor over a buffer, without a copy."""
    import torch

    element_type = getattr(torch, dtype)
    if memoryview(buffer).nbytes == 0:
        return torch.empty(shape, dtype=element_type)
    return torch.frombuffer(buffer, dtype=torch.uint8).view(element_type).reshape(shape)


def encode(value: Any) -> list[Buffer]:
    """Turn an object into blobs, the pickle first.

    Raises:
        Exception: whatever pickling one of its parts raises.
    """
    return _encode(value)[0]


def count_device_tensors(value: Any) -> int:
    """How many tensors on a device other than the CPU stand anywhere in an object, within objects of any class too."""
    return _encode(value)[1]


def _encode(value: Any) -> tuple[list[Buffer], int]:
    file, buffers = io.BytesIO(), list[Buffer]()
    pickler = _Pickler(file, buffers)
    pickler.dump(value)
    pickler.finish()
    return [file.getvalue(), *buffers], pickler.device_tensors


def decode(blobs: Sequence[Buffer]) -> Any:
    """Make the object again; arrays and tensors lie over the blobs, so byte arrays make them writable."""
    return pickle.loads(blobs[0], buffers=blobs[1:])
