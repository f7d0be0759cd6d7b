"""A stage at work on a GPU: its thread only issues work, on a stream of the stage's own, and the device does the waiting.

    who hands an item   copy stream       ──copies──┐ event
    the stage's thread  compute stream              └──► begin ── stage(items) ── end ──► the stage behind it, the caller
    another one         another stream              (the same, with the same weights, for another batch)

So while a batch is computed, the next one is issued and the items of the one after it are on their way to the device. Of
the threads only two ever wait for the device: the caller for the last stage, and a stage's for its batch before the last.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from multigpu_inference.engine import structure
from multigpu_inference.engine.job import Job, Pass
from multigpu_inference.engine.stage import Stage
from multigpu_inference.engine.stage_runner import Runner, StageRunner

if TYPE_CHECKING:
    import torch

# One is computed while the next is issued; with more, batches would form long before they can run.
_BATCHES_ON_DEVICE = 2
_ON_HOST = (type(None), int, float, complex, str, bytes, bytearray, memoryview, np.ndarray, np.generic)


class CudaPass(Pass):
    """One batch's way through a stage that only issues work."""

    def __init__(self, batch_size: int) -> None:
        """Make the events, which the runner records.

        They block: a thread that waits for one sleeps, where it would spin otherwise, and callers who wait are many. Either
        way it waits without the GIL.
        """
        import torch

        super().__init__(0.0, 0.0, batch_size)
        self.begin = torch.cuda.Event(enable_timing=True, blocking=True)
        self.end = torch.cuda.Event(enable_timing=True, blocking=True)
        self._seen: float | None = None

    def wait(self) -> None:
        """Wait for the end event, and note when it was seen first."""
        self.end.synchronize()
        if self._seen is None:
            self._seen = time.monotonic()

    def times(self, latest: float) -> tuple[float, float]:
        """The length as the device measured it, up to when the end was seen or the next stage began."""
        ended = min(latest, time.monotonic() if self._seen is None else self._seen)
        return ended - float(self.begin.elapsed_time(self.end)) / 1e3, ended


class _Lane(threading.local):
    """What each of the stage's threads has for itself: its stream, and its batches on the device."""

    def __init__(self, device: torch.device | str) -> None:
        import torch

        self.compute = torch.cuda.Stream(device=device)
        self.on_device: deque[CudaPass] = deque()


class CudaStageRunner(StageRunner):
    """Runs a stage on streams of its own."""

    def __init__(
        self, stage: Stage, number: int, limit: int, max_delay_s: float, behind: Runner | None, threads: int = 1
    ) -> None:
        """Make the streams; the arguments are those of `StageRunner`."""
        import torch

        super().__init__(stage, number, limit, max_delay_s, behind, threads)
        self._lane = _Lane(stage.device)
        self._copy = torch.cuda.Stream(device=stage.device)
        self._from_peers: dict[torch.device, torch.cuda.Stream] = {}

    def _bring(self, job: Job) -> None:
        """Copy an item's tensors that are elsewhere to the device, without waiting for anything."""
        import torch

        device = self._copy.device
        if self._number == 1:
            job.ready = made_by_caller(job.value, device)
        tensors = [leaf for _, leaf in structure.leaves(job.value) if structure.is_tensor(leaf)]
        if all(tensor.device == device for tensor in tensors):
            return
        # PyTorch issues a copy between two GPUs on the current stream of its *source*, lets that wait for the current
        # stream of the destination first, and the destination's for it afterwards. So both are made ours here: on the
        # compute stream of this stage or of the one before, the copy would stand behind batches which have nothing to do
        # with it. A copy from the host runs on the destination's current stream, and leaves at once from pinned memory.
        peers = {tensor.device for tensor in tensors if tensor.is_cuda} - {device}
        copied = torch.cuda.Event(blocking=True)
        with contextlib.ExitStack() as current:
            for stream in (*map(self._from_peer, peers), self._copy):
                for event in job.ready:
                    stream.wait_event(event)
                current.enter_context(torch.cuda.stream(stream))
            try:
                moved = structure.place_tensors(job.value, structure.tensor_paths(job.value), self._to_device)
            finally:  # what fails half way has issued copies too, and they still read the item
                copied.record(self._copy)
                job.issued.append(copied)
        job.become(moved, (*job.ready, copied))

    def _from_peer(self, peer: torch.device) -> torch.cuda.Stream:
        """The stream on another GPU on which copies from there run."""
        import torch

        stream = self._from_peers.get(peer)
        return stream or self._from_peers.setdefault(peer, torch.cuda.Stream(device=peer))

    def _to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._copy.device, non_blocking=True)

    def _make_room(self) -> None:
        on_device = self._lane.on_device
        while len(on_device) >= _BATCHES_ON_DEVICE:
            with contextlib.suppress(Exception):  # whoever waits for that batch is told; this thread goes on
                on_device.popleft().wait()

    def _pass(self, jobs: list[Job]) -> None:
        import torch

        passed, compute = CudaPass(len(jobs)), self._lane.compute
        with torch.cuda.stream(compute):
            for event in {event for job in jobs for event in job.ready}:
                compute.wait_event(event)
            passed.begin.record(compute)
            try:
                results = self._call([job.value for job in jobs])
            finally:  # a stage that fails has issued work too, and it still reads the items
                passed.end.record(compute)
                self._lane.on_device.append(passed)
                for job in jobs:
                    job.issued.append(passed.end)
        for job, result in zip(jobs, results, strict=True):
            job.become(result, (passed.end,))
            job.passed(passed)

    def _free_memory(self) -> None:
        import torch

        torch.cuda.empty_cache()


def made_by_caller(value: Any, device: torch.device) -> tuple[torch.cuda.Event, ...]:
    """What an item waits for that the caller may still be making on its own streams; nothing where it is on the host."""
    import torch

    devices = set()
    for _, leaf in structure.leaves(value):
        if structure.is_tensor(leaf):
            devices |= {leaf.device} if leaf.is_cuda else set()
        elif not isinstance(leaf, _ON_HOST):
            devices.add(device)  # an object that may hold tensors of its own
    events = []
    for made_on in devices:
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(made_on))
        events.append(event)
    return tuple(events)
