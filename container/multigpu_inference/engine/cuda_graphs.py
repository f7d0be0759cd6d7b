"""A network's passes as CUDA graphs, one for each batch size that it was captured for.

A captured pass always reads the same input tensors and writes the same output tensors: a batch is copied into the
first, the graph is replayed, and the outputs are copied out before the next replay writes over them. One launch takes
the place of the hundreds of an eager pass, each of which would hold the interpreter's lock. Runs in a replica worker;
`accelerate` decides which network gets them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from multigpu_inference.engine.structure import is_tensor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Replay: TypeAlias = Callable[[], object]

# Before a capture libraries choose their kernels and take their workspaces, which a capture cannot record.
_WARM_UP_PASSES = 3
# CUDA and PyTorch take one capture at a time in a process, on whichever device.
_capturing = threading.Lock()


class Recorder(Protocol):
    """What captures work on a device. Tests have one that needs no device."""

    def record(self, work: Callable[[], Any]) -> tuple[Replay, Any]:
        """Do `work` and keep it: what repeats it, and its result, whose tensors every repetition writes anew."""
        ...

    def turn(self) -> AbstractContextManager[None]:
        """From the copy into the static inputs to the copies out of the static outputs: one caller at a time."""
        ...


class CudaRecorder:
    """Captures CUDA graphs, all of them in one memory pool."""

    def __init__(self, device: torch.device) -> None:
        """Take a stream and a pool on a device."""
        import torch

        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._done = torch.cuda.Event()
        self._lock = threading.Lock()

    def record(self, work: Callable[[], Any]) -> tuple[Replay, Any]:
        """Capture `work`, which only issues kernels, on a stream of its own. Waits for the device."""
        import torch

        with _capturing, torch.cuda.device(self._device):
            callers = torch.cuda.current_stream()
            self._stream.wait_stream(callers)
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP_PASSES):
                    work()
            graph = torch.cuda.CUDAGraph()
            # thread_local: other replicas and stages of this process go on allocating and copying meanwhile, which
            # the default takes for mistakes of this capture. The outer block puts the caller's stream back, which a
            # capture that fails leaves replaced by its own.
            with (
                torch.cuda.stream(callers),
                torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
            ):
                result = work()
            callers.wait_stream(self._stream)
        return graph.replay, result

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Put what is issued on the current stream behind the last turn, whichever stream that was on.

        All replays are expected on the one stream of their stage, where this costs next to nothing; a direct call on
        another stream, from a warm-up or a notebook, would otherwise write into a replay that is still running.
        """
        import torch

        with self._lock:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(self._done)
            try:
                yield
            finally:
                self._done.record(stream)


class CudaGraphs:
    """A network of a fixed shape, captured for several batch sizes."""

    def __init__(
        self, network: Callable[..., Any], example: Sequence[Tensor], sizes: Sequence[int], recorder: Recorder
    ) -> None:
        """Capture the network.

        Args:
            network: Issues work for inputs [N, ...] and waits for nothing; every tensor of its result is [N, ...].
            example: One item's inputs, [1, ...], on the device.
            sizes: The batch sizes.
            recorder: What captures.

        Raises:
            ValueError: where a tensor of the result has another first dimension.
        """
        import torch

        self._recorder = recorder
        largest = max(sizes)
        self._inputs = [torch.cat([item] * largest) for item in example]
        self._passes: dict[int, tuple[Replay, Any]] = {}
        # The largest first: the smaller ones find all the memory that they need in the pool. They may share it, as a
        # result is kept alive here and everything else is of no use after its replay.
        for size in sorted(sizes, reverse=True):
            inputs = [static[:size] for static in self._inputs]
            replay, outputs = recorder.record(partial(network, *inputs))
            map_tensors(outputs, partial(_check_first, size))
            self._passes[size] = replay, outputs

    def __call__(self, size: int, inputs: Sequence[Tensor], take: Callable[[Tensor], Tensor]) -> Any:
        """Run the pass that was captured for `size` items.

        Args:
            size: One of the sizes.
            inputs: [N, ...] of at most `size` items, in the shapes and types of the example. The rows that they do not
                fill are computed as well, from what was there before.
            take: Makes of each of the result's tensors, [size, ...], one that has memory of its own.

        Returns:
            The network's result, made of what `take` returned.
        """
        replay, outputs = self._passes[size]
        with self._recorder.turn():
            for static, given in zip(self._inputs, inputs, strict=True):
                static[: len(given)].copy_(given, non_blocking=True)
            replay()
            return map_tensors(outputs, take)


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same tensor, or nested tuples and lists of tensors, with `function` applied to each; others are left."""
    if is_tensor(value):
        return function(value)
    if isinstance(value, list | tuple):
        items = [map_tensors(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def _check_first(size: int, output: Tensor) -> None:
    if output.ndim == 0 or len(output) != size:
        raise ValueError(f"an output has the shape {list(output.shape)} for a batch of {size}")
