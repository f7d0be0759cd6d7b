"""The two stages in a row on one GPU: one after the other, overlapped, in batches, with graphs, in several processes.

A request's picture starts in the host's memory, pinned as the arena's are, and its matte ends on the device.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.gpu_networks import chain_limit
from bench.gpu_report import Row, Section
from bench.gpu_setup import FLOAT16, Precision, Setup, free_memory, number_format

from multigpu_inference import Pipeline  # isort: skip
from multigpu_inference.engine import hops  # isort: skip

_START_S = 180.0  # for a process to import torch, load and capture
_CHAIN_SAMPLE = 4  # times as long as a network's: a pipeline has to fill


def measure_chain(setup: Setup, section: Section) -> None:
    """Serial, overlapped, batched, with graphs."""
    for precision in setup.chain_precisions:
        with number_format(precision):
            for max_batch_size, callers in setup.callers:
                limit, how = chain_limit(setup, precision, max_batch_size)
                free_memory()
                note = f"limit: {how}"
                if max_batch_size == 1:
                    rate = _serial_rate(setup, precision)
                    section.rows.append(Row("serial", precision.name, 1, rate, limit, note))
                for cuda_graphs in (False, True) if setup.device.type == "cuda" else (False,):
                    pipeline = Pipeline(setup.stages(precision, max_batch_size, cuda_graphs=cuda_graphs))
                    rate = _median(setup, partial(called_rate, setup, pipeline, callers))
                    what = f"{'overlapped' if max_batch_size == 1 else 'batched'}{', CUDA graphs' if cuda_graphs else ''}"
                    section.rows.append(Row(what, precision.name, max_batch_size, rate, limit, f"{callers} callers"))
                    close(pipeline)
                    free_memory()


def _serial_rate(setup: Setup, precision: Precision) -> float:
    first, second = setup.stages(precision, 1)
    (picture,) = setup.pictures(1)

    def request() -> None:
        second(first([picture]))
        setup.synchronise()

    return setup.rate(request, 1)


def called_rate(setup: Setup, pipeline: Callable[[Tensor], Any], callers: int) -> float:
    """Images a second of a pipeline that threads call as fast as it answers, from the first answer to the last."""
    pictures = setup.pictures(min(callers, 8))
    ended: list[float] = []
    errors: list[BaseException] = []
    until = time.perf_counter() + setup.seconds * _CHAIN_SAMPLE

    def call(number: int) -> None:
        try:
            while True:
                pipeline(pictures[number % len(pictures)])
                ended.append(time.perf_counter())
                if ended[-1] > until and len(ended) > callers:
                    return
        except BaseException as error:  # of a thread nobody would hear
            errors.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    ended.sort()
    # A batch's answers come together, so what counts is what came after the first of them.
    return (len(ended) - callers) / (ended[-1] - ended[callers - 1])


def close(pipeline: Pipeline) -> None:
    """Also wait for its threads: an interpreter that exits beside one that is inside torch is aborted."""
    pipeline.close()
    for thread in threading.enumerate():
        if thread.name.startswith("stage-"):
            thread.join(10)


def _median(setup: Setup, measure: Callable[[], float]) -> float:
    measure()  # warms: every batch size that forms has its kernels chosen
    return statistics.median(measure() for _ in range(setup.samples))


def measure_replicas(setup: Setup, section: Section) -> None:
    """Several processes on the one device, each with both stages, as replica workers are."""
    precision = FLOAT16 if setup.device.type == "cuda" else setup.chain_precisions[0]
    max_batch_size, callers = setup.callers[-1]
    with number_format(precision):
        limit, how = chain_limit(setup, precision, max_batch_size)
    free_memory()
    for number in setup.replicas:
        rate = _rate_of_processes(setup, precision, number, max_batch_size, callers)
        what = f"{number} replica{'s' if number > 1 else ''}, {callers} callers each"
        section.rows.append(Row(what, precision.name, max_batch_size, rate, limit, f"limit: {how}"))


def _rate_of_processes(setup: Setup, precision: Precision, number: int, max_batch_size: int, callers: int) -> float:
    context = multiprocessing.get_context("spawn")
    ready, rates = context.Barrier(number + 1), context.Queue()
    arguments = (setup, precision, max_batch_size, callers, ready, rates)
    processes = [context.Process(target=_replica, args=arguments, name=f"replica-{i}") for i in range(number)]
    for process in processes:
        process.start()
    try:
        ready.wait(_START_S)
        answers = [rates.get(timeout=_START_S) for _ in processes]
    finally:
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
    failed = [answer for answer in answers if isinstance(answer, str)]
    if failed:
        raise RuntimeError(failed[0])
    return sum(float(answer) for answer in answers)


def _replica(
    setup: Setup, precision: Precision, max_batch_size: int, callers: int, ready: Barrier, rates: Queue[float | str]
) -> None:
    """One process: load, warm, wait for the others, answer."""
    setup.take_threads()
    try:
        with number_format(precision):
            pipeline = Pipeline(setup.stages(precision, max_batch_size, cuda_graphs=True))
            called_rate(setup, pipeline, callers)
            ready.wait(_START_S)
            # All of them over the same time: each one's samples together, not their median.
            rate = statistics.mean(called_rate(setup, pipeline, callers) for _ in range(setup.samples))
            close(pipeline)
            rates.put(rate)
    except threading.BrokenBarrierError:
        rates.put("another replica failed")
    except BaseException as error:
        ready.abort()
        rates.put(f"{type(error).__name__}: {error}")


def record_trace(setup: Setup, section: Section, folder: Path) -> None:
    """Some requests in flight together: when each stage worked on which, and what the device ran, for chrome://tracing."""
    precision = setup.chain_precisions[-1]
    folder.mkdir(parents=True, exist_ok=True)
    with number_format(precision):
        pipeline = Pipeline(setup.stages(precision, 1))
        pictures = setup.pictures(4)
        _spans_of(pipeline, pictures)  # warms
        spans = _spans_of(pipeline, pictures * 3)
        path = folder / "gpu_spans.json"
        path.write_text(json.dumps({"traceEvents": chrome_events(spans)}))
        both = overlap([(s.started, s.ended) for s in spans if s.name == "stage_1_ms"],
                       [(s.started, s.ended) for s in spans if s.name == "stage_2_ms"])  # fmt: skip
        section.notes.append(f"`{path.name}`: {len(spans)} spans of the stages; both were at work in {both:.0%} of the time.")
        activities = [torch.profiler.ProfilerActivity.CPU]
        if setup.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            _spans_of(pipeline, pictures)
            setup.synchronise()
        profile.export_chrome_trace(str(folder / "gpu_kernels.json"))
        section.notes.append("`gpu_kernels.json`: what the profiler saw of four requests, by thread and by stream.")
        close(pipeline)


def _spans_of(pipeline: Callable[[Tensor], Any], pictures: Sequence[Tensor]) -> list[hops.Span]:
    """The stages' spans of pictures that are all sent at once."""
    spans: list[hops.Span] = []

    def call(picture: Tensor) -> None:
        with hops.recording() as recorded:
            pipeline(picture)
        spans.extend(recorded)

    threads = [threading.Thread(target=call, args=(picture,)) for picture in pictures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(spans, key=lambda span: span.started)


def chrome_events(spans: Sequence[hops.Span]) -> list[dict[str, Any]]:
    """Spans as complete events of Chrome's trace format, one row for each stage."""
    began = min((span.started for span in spans), default=0.0)
    return [
        {
            "name": f"batch of {span.batch_size}",
            "ph": "X",
            "pid": "replica",
            "tid": span.name.removesuffix("_ms"),
            "ts": (span.started - began) * 1e6,
            "dur": (span.ended - span.started) * 1e6,
        }
        for span in spans
    ]


def overlap(first: Sequence[tuple[float, float]], second: Sequence[tuple[float, float]]) -> float:
    """The share of the time in which an interval of each kind is open, from the first beginning to the last end."""
    ends = sorted({time for interval in (*first, *second) for time in interval})
    both = sum(
        end - start
        for start, end in itertools.pairwise(ends)
        if all(any(a <= start and end <= b for a, b in kind) for kind in (first, second))
    )
    return both / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0
