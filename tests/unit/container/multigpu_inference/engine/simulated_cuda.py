"""GPUs that compute nothing but know in which order their work is done, in the place of `torch.cuda`.

A stream is the set of what has been issued on it and what that waits for. Reading a tensor on a stream that does not wait
for what made it is a race, which a real GPU would not tell. The device is as fast as the test lets it: `hold` keeps every
event from passing until `release`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

PATIENCE_S = 10.0


class Stream:
    def __init__(self, cuda: SimulatedCuda, device: Any) -> None:
        self.cuda = cuda
        self.device = torch.device(device)
        self.past: frozenset[str] = frozenset()

    def issue(self, work: str) -> str:
        self.cuda.past_of[work] = self.past
        self.past |= {work}
        return work

    def wait_event(self, event: Event) -> None:
        self.past |= event.past


class Event:
    def __init__(self, cuda: SimulatedCuda, enable_timing: bool = False, blocking: bool = False) -> None:
        assert blocking, "a thread that waits must not spin"
        self.cuda = cuda
        self.timed = enable_timing
        self.past: frozenset[str] = frozenset()
        self.stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self.stream = stream
        self.past = stream.past

    def synchronize(self) -> None:
        assert self.cuda.running.wait(PATIENCE_S), "the device was never released"
        if self.cuda.lost is not None:
            raise self.cuda.lost

    def elapsed_time(self, end: Event) -> float:
        assert self.timed
        assert end.timed
        assert self.stream is not None
        assert self.stream is end.stream
        return 250.0


class SimulatedTensor(torch.Tensor):
    """A tensor that says it is on a GPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    cuda_: SimulatedCuda
    place: torch.device
    label: str
    made: str | None
    recorded: set[Stream]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return self.place.type == "cuda"

    def read(self, stream: Stream) -> None:
        assert self.made is None or self.made in stream.past, f"a race: {self.label} is read before it is made"

    def to(self, device: torch.device, non_blocking: bool = False) -> SimulatedTensor:  # type: ignore[override]
        if device == self.place:
            return self
        assert non_blocking
        destination = self.cuda_.current_stream(device)
        # As in PyTorch: between GPUs, on the current stream of the source, with a barrier before and behind.
        stream = self.cuda_.current_stream(self.place) if self.is_cuda else destination
        stream.past |= destination.past
        self.read(stream)
        if self.label in self.cuda_.too_large:
            raise torch.OutOfMemoryError
        made = stream.issue(f"copy {self.label} to {device}")
        destination.past |= stream.past
        return self.cuda_.tensor(self.label, device, made)

    def record_stream(self, stream: Stream) -> None:  # type: ignore[override]
        self.recorded.add(stream)


class SimulatedCuda:
    """The part of `torch.cuda` that a pipeline uses, and what has been done with it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.past_of: dict[str, frozenset[str]] = {}
        self.too_large: set[str] = set()
        self.emptied = 0
        self.lost: BaseException | None = None
        self.running = threading.Event()
        self.running.set()
        self._default: dict[torch.device, Stream] = {}
        self._current = threading.local()
        patch.setattr(torch.cuda, "Stream", lambda device: Stream(self, device))
        patch.setattr(torch.cuda, "Event", lambda **options: Event(self, **options))
        patch.setattr(torch.cuda, "stream", self.stream)
        patch.setattr(torch.cuda, "current_stream", self.current_stream)
        patch.setattr(torch.cuda, "empty_cache", self._empty_cache)

    def hold(self) -> None:
        self.running.clear()

    def release(self) -> None:
        self.running.set()

    def current_stream(self, device: Any) -> Stream:
        device = torch.device(device)
        default = self._default.setdefault(device, Stream(self, device))
        stream: Stream = getattr(self._current, "of", {}).get(device, default)
        return stream

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before = getattr(self._current, "of", {})
        self._current.of = before | {stream.device: stream}
        try:
            yield
        finally:
            self._current.of = before

    def tensor(self, label: str, device: Any = "cpu", made: str | None = None) -> SimulatedTensor:
        tensor = torch.zeros(2).as_subclass(SimulatedTensor)
        tensor.cuda_, tensor.place, tensor.label, tensor.made = self, torch.device(device), label, made
        tensor.recorded = set()
        return tensor

    def _empty_cache(self) -> None:
        self.emptied += 1
