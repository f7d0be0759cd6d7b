"""Single networks and stages on a GPU: their limit, eager, as graphs, in both layouts; and the way of a batch to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.gpu_report import Row, Section
from bench.gpu_setup import FLOAT16, Precision, Setup, number_format

from matting.distance import distance_features  # isort: skip
from matting.pipeline import MattingStage, Trimapped, TrimapStage  # isort: skip
from multigpu_inference import accelerate  # isort: skip
from multigpu_inference.engine.cuda_graphs import CudaRecorder  # isort: skip

Inputs = tuple[Tensor, ...]


def measure_networks(setup: Setup, section: Section) -> None:
    """Each network in each number format: eager, and where its shape is fixed in graphs, beside its limit."""
    for name, make, inputs_of in _networks(setup):
        for precision in setup.precisions:
            for batch_size in (1, setup.batch_size):
                with number_format(precision):
                    _measure_network(setup, section, name, make(), inputs_of(batch_size), precision, batch_size)


def _measure_network(
    setup: Setup, section: Section, name: str, network: nn.Module, inputs: Inputs, precision: Precision, batch_size: int
) -> None:
    cast = len(inputs) == 1  # the matting network casts by itself
    eager = accelerate(network, setup.device, cast_inputs=cast, settings=setup.settings(precision))
    limit, how = measured_limit(setup, lambda: eager(*inputs), batch_size)
    rate = setup.rate(lambda: eager(*inputs), batch_size)
    section.rows.append(Row(f"{name}, eager", precision.name, batch_size, rate, limit, f"limit: {how}{_peak(setup)}"))
    if setup.device.type == "cuda":
        graphs = accelerate(
            network,
            setup.device,
            example=[x[:1] for x in inputs],
            max_batch_size=batch_size,
            cast_inputs=cast,
            settings=setup.settings(precision, cuda_graphs=True),
        )
        rate = setup.rate(lambda: graphs(*inputs), batch_size)
        section.rows.append(Row(f"{name}, CUDA graphs", precision.name, batch_size, rate, limit))


def measure_layouts(setup: Setup, section: Section) -> None:
    """Channels innermost or outermost, in each number format; and what the distances take of the matting network."""
    for name, make, inputs_of in _networks(setup):
        inputs = inputs_of(setup.batch_size)
        for precision in setup.precisions:
            with number_format(precision):
                for channels_last in (False, True):
                    settings = setup.settings(precision, channels_last=channels_last)
                    run = accelerate(make(), setup.device, cast_inputs=len(inputs) == 1, settings=settings)
                    rate = setup.rate(partial(run, *inputs), setup.batch_size)
                    layout = "channels last" if channels_last else "planes"
                    section.rows.append(Row(f"{name}, {layout}", precision.name, setup.batch_size, rate))
    known = _networks(setup)[1][2](setup.batch_size)[1]
    with torch.inference_mode():
        rate = setup.rate(lambda: distance_features(known), setup.batch_size)
    section.rows.append(Row("distance features alone", "float32", setup.batch_size, rate, note="a part of FBA"))


def measure_copies(setup: Setup, section: Section) -> None:
    """The first stage with its pictures on the device, and with their copy to it before each batch or beside the last."""
    precision, number = FLOAT16 if setup.device.type == "cuda" else setup.precisions[0], setup.batch_size
    with number_format(precision):
        there = [picture.to(setup.device) for picture in setup.pictures(number)]
        eager = setup.stages(precision, number)[0]  # a graph cannot be captured within a graph
        limit, how = measured_limit(setup, lambda: eager(there), number)
        stage = setup.stages(precision, number, cuda_graphs=True)[0]
        rate = setup.rate(lambda: stage(there), number)
        section.rows.append(Row("stage 1, pictures there", precision.name, number, rate, limit, f"limit: {how}"))
        for pinned in (True, False):
            pictures = setup.pictures(number, pinned=pinned)
            for overlapped in (False, True):
                rate = setup.rate(_CopyThenRun(setup, stage, pictures, overlapped), number)
                memory, when = "pinned" if pinned else "pageable", "overlapped" if overlapped else "in line"
                section.rows.append(Row(f"copied from {memory} memory, {when}", precision.name, number, rate, limit))


class _CopyThenRun:
    """One batch: its copy, and then the stage. Overlapped, the copy is on a stream of its own, into two buffers in turn."""

    def __init__(self, setup: Setup, stage: TrimapStage, pictures: Sequence[Tensor], overlapped: bool) -> None:
        self._stage = stage
        self._pictures = pictures
        cuda = setup.device.type == "cuda"
        self._stream = torch.cuda.Stream(setup.device) if cuda and overlapped else None
        self._buffers = [[picture.to(setup.device) for picture in pictures] for _ in range(2)]
        self._used = [torch.cuda.Event() if cuda else None for _ in range(2)]
        self._copied = torch.cuda.Event() if cuda else None
        self._turn = 0

    def __call__(self) -> None:
        self._turn = 1 - self._turn
        buffer, used = self._buffers[self._turn], self._used[self._turn]
        on_stream: AbstractContextManager[Any] = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with on_stream:
            if self._stream is not None and used is not None:
                self._stream.wait_event(used)
            for place, picture in zip(buffer, self._pictures, strict=True):
                place.copy_(picture, non_blocking=True)
            if self._copied is not None:
                self._copied.record()
        if self._copied is not None:
            torch.cuda.current_stream().wait_event(self._copied)
        self._stage(buffer)
        if used is not None:
            used.record()


def chain_limit(setup: Setup, precision: Precision, batch_size: int) -> tuple[float, str]:
    """What one device does of the whole chain: both stages' replays with the data there, one after the other."""
    first, second = setup.stages(precision, batch_size)
    pictures = [picture.to(setup.device) for picture in setup.pictures(batch_size)]
    trimapped = first(pictures)
    limits = [
        measured_limit(setup, lambda: first(pictures), batch_size),
        measured_limit(setup, lambda: _matte_all(second, trimapped), batch_size),
    ]
    return 1 / sum(1 / rate for rate, _ in limits), ", ".join(sorted({how for _, how in limits}))


def measured_limit(setup: Setup, work: Callable[[], Any], items: int) -> tuple[float, str]:
    """Items a second of the device alone, and how that was measured: replays of a graph, or where there is none a loop."""
    if setup.device.type != "cuda":
        return setup.rate(work, items), "loop"
    try:
        with torch.inference_mode():
            replay, _ = CudaRecorder(setup.device).record(work)
    except Exception as error:  # whatever it is, there is another way
        setup.synchronise()
        return setup.rate(work, items), f"loop, as {type(error).__name__} stopped the capture"
    return setup.rate(replay, items), "replay"


def _matte_all(stage: MattingStage, items: Sequence[Trimapped]) -> None:
    """In batches as large as the stage takes."""
    step = stage.batch_limit(stage.batch_key(items[0]))
    for start in range(0, len(items), step):
        stage(items[start : start + step])


def _networks(setup: Setup) -> list[tuple[str, Callable[[], nn.Module], Callable[[int], Inputs]]]:
    def trimap_inputs(number: int) -> Inputs:
        return (torch.rand(number, 3, setup.trimap_size, setup.trimap_size, device=setup.device),)

    def matting_inputs(number: int) -> Inputs:
        height, width = setup.height, setup.width
        columns = torch.arange(width, device=setup.device).expand(number, height, width)
        known = torch.stack((columns < width // 3, columns > width // 2), dim=1).float()
        return torch.rand(number, 3, height, width, device=setup.device), known

    return [
        (f"U²-Net {setup.networks} {setup.trimap_size} x {setup.trimap_size}", setup.trimap_network, trimap_inputs),
        (f"FBA {setup.networks} {setup.width} x {setup.height}", setup.matting_network, matting_inputs),
    ]


def _peak(setup: Setup) -> str:
    """The most memory since the last call, in words."""
    if setup.device.type != "cuda":
        return ""
    peak = torch.cuda.max_memory_allocated(setup.device)
    torch.cuda.reset_peak_memory_stats(setup.device)
    return f"; {peak / 2**30:.1f} GiB at most"
