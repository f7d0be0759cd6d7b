from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import torch

from multigpu_inference.engine import hops
from multigpu_inference.engine.pipeline import Pipeline
from multigpu_inference.engine.stage_runner import StageRunner
from support import wait_until
from unit.container.multigpu_inference.engine.simulated_cuda import Event, SimulatedCuda, SimulatedTensor
from unit.container.multigpu_inference.engine.waiting import waits_in

PATIENCE_S = 10.0


class Picture(NamedTuple):
    pixels: Any
    name: str


class CudaStage:
    """Issues one piece of work for each batch; reads its items, as the simulation checks."""

    def __init__(self, cuda: SimulatedCuda, name: str, device: str, max_batch_size: int = 1) -> None:
        self.cuda = cuda
        self.name = name
        self.device = torch.device(device)
        self.max_batch_size = max_batch_size
        self.batches: list[str] = []
        self.failing: dict[str, BaseException] = {}

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        tensors = [item.pixels if isinstance(item, Picture) else item for item in items]
        labels = "+".join(tensor.label for tensor in tensors)
        self.batches.append(labels)
        stream = self.cuda.current_stream(self.device)
        for tensor in tensors:
            assert tensor.device == self.device
            tensor.read(stream)
        made = stream.issue(f"{self.name} {labels}")
        for label in [labels, *(tensor.label for tensor in tensors)]:
            if label in self.failing:
                raise self.failing[label]
        return [self.cuda.tensor(tensor.label, self.device, made) for tensor in tensors]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    return SimulatedCuda(monkeypatch)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture
def ring(cuda: SimulatedCuda) -> tuple[Pipeline, CudaStage, CudaStage]:
    """Two stages on two devices."""
    first, second = CudaStage(cuda, "first", "cuda:0"), CudaStage(cuda, "second", "cuda:1")
    return Pipeline([first, second]), first, second


Ring = tuple[Pipeline, CudaStage, CudaStage]


def stage_thread(pipeline: Pipeline, number: int) -> threading.Thread | None:
    (runners,) = pipeline._runners.values()
    runner = runners[number - 1]
    assert isinstance(runner, StageRunner)
    return next(iter(runner._threads), None)


def test_an_item_is_copied_to_each_stage_before_it_is_read(cuda: SimulatedCuda, ring: Ring) -> None:
    result = ring[0](cuda.tensor("a"))
    assert (result.label, str(result.device)) == ("a", "cuda:1")
    assert list(cuda.past_of) == ["copy a to cuda:0", "first a", "copy a to cuda:1", "second a"]
    assert cuda.past_of["second a"] == {"copy a to cuda:0", "first a", "copy a to cuda:1"}


def test_tensors_within_an_item_are_copied(cuda: SimulatedCuda, ring: Ring) -> None:
    assert ring[0](Picture(cuda.tensor("a"), "name")).label == "a"


def test_what_is_on_the_device_is_not_copied(cuda: SimulatedCuda) -> None:
    stages = [CudaStage(cuda, name, "cuda:0") for name in ("first", "second")]
    Pipeline(stages)(cuda.tensor("a", "cuda:0"))
    assert list(cuda.past_of) == ["first a", "second a"]
    assert cuda.past_of["second a"] == {"first a"}


def test_copies_and_stages_wait_for_nothing_of_other_items(cuda: SimulatedCuda, ring: Ring) -> None:
    for label in "ab":
        ring[0](cuda.tensor(label))
    assert cuda.past_of["copy b to cuda:0"] == {"copy a to cuda:0"}  # not for the work on a
    assert cuda.past_of["copy b to cuda:1"] == {  # for its own stage, and the copy before on the same way
        *("copy a to cuda:0", "first a", "copy a to cuda:1"),
        *("copy b to cuda:0", "first b"),
    }
    assert "second a" not in cuda.past_of["copy b to cuda:1"]
    assert "copy a to cuda:1" not in cuda.past_of["first b"]  # the first device does not wait for the way to the second


def test_the_next_stage_is_issued_without_waiting_for_the_one_before(
    cuda: SimulatedCuda, ring: Ring, threads: ThreadPoolExecutor
) -> None:
    cuda.hold()
    call = threads.submit(ring[0], cuda.tensor("a"))
    wait_until(lambda: ring[2].batches == ["a"], PATIENCE_S)
    assert not call.done()
    cuda.release()
    assert call.result(PATIENCE_S).label == "a"


def test_two_batches_are_on_the_device_at_most(cuda: SimulatedCuda, threads: ThreadPoolExecutor) -> None:
    stage = CudaStage(cuda, "only", "cuda:0")
    pipeline = Pipeline([stage])
    cuda.hold()
    calls = [threads.submit(pipeline, cuda.tensor(label)) for label in "abcd"]
    wait_until(lambda: len(stage.batches) == 2, PATIENCE_S)
    wait_until(lambda: waits_in(Event.synchronize, stage_thread(pipeline, 1)), PATIENCE_S)
    assert len(stage.batches) == 2
    cuda.release()
    assert [call.result(PATIENCE_S).label for call in calls] == list("abcd")


def test_items_are_on_their_way_while_the_device_is_full(cuda: SimulatedCuda, threads: ThreadPoolExecutor) -> None:
    pipeline = Pipeline([CudaStage(cuda, "only", "cuda:0")])
    cuda.hold()
    calls = [threads.submit(pipeline, cuda.tensor(label)) for label in "abcd"]
    wait_until(lambda: {f"copy {label} to cuda:0" for label in "abcd"} <= set(cuda.past_of), PATIENCE_S)
    cuda.release()
    for call in calls:
        call.result(PATIENCE_S)


def test_what_came_while_the_device_was_full_is_one_batch(cuda: SimulatedCuda, threads: ThreadPoolExecutor) -> None:
    stage = CudaStage(cuda, "only", "cuda:0", max_batch_size=8)
    pipeline = Pipeline([stage])
    cuda.hold()
    calls = []
    for number, label in enumerate("ab", 1):
        calls.append(threads.submit(pipeline, cuda.tensor(label)))
        wait_until(lambda number=number: len(stage.batches) == number, PATIENCE_S)  # type: ignore[misc]
    calls += [threads.submit(pipeline, cuda.tensor(label)) for label in "cde"]
    (runners,) = pipeline._runners.values()
    (runner,) = runners
    assert isinstance(runner, StageRunner)
    wait_until(lambda: len(runner._queue._waiting) == 3, PATIENCE_S)
    cuda.release()
    for call in calls:
        call.result(PATIENCE_S)
    assert sorted(stage.batches[2]) == sorted("c+d+e")


def test_many_items_pass_without_a_race(cuda: SimulatedCuda, threads: ThreadPoolExecutor) -> None:
    stages = [CudaStage(cuda, name, device, 4) for name, device in [("one", "cuda:0"), ("two", "cuda:1"), ("three", "cuda:0")]]
    pipeline = Pipeline(stages)
    labels = [f"i{number}" for number in range(100)]
    results = list(threads.map(pipeline, [cuda.tensor(label) for label in labels]))
    assert [result.label for result in results] == labels


def test_what_the_caller_still_makes_on_its_stream_is_waited_for(cuda: SimulatedCuda, ring: Ring) -> None:
    for device in ("cuda:0", "cuda:1"):
        made = cuda.current_stream(device).issue(f"made on {device}")
        ring[0](cuda.tensor(f"from {device}", device, made))  # the simulation fails on a race
    assert "made on cuda:0" in cuda.past_of["first from cuda:0"]


def test_the_tensors_of_an_object_that_nobody_looks_into_are_waited_for(cuda: SimulatedCuda) -> None:
    class Opaque:
        label = "a"
        device = torch.device("cuda:0")

        def read(self, stream: Any) -> None:
            assert "made" in stream.past

    cuda.current_stream("cuda:0").issue("made")
    assert Pipeline([CudaStage(cuda, "only", "cuda:0")])(Opaque()).label == "a"


def test_what_is_on_the_host_does_not_wait_for_the_callers_streams(cuda: SimulatedCuda, ring: Ring) -> None:
    cuda.current_stream("cuda:0").issue("work of others")
    ring[0](Picture(cuda.tensor("a"), "name"))
    assert "work of others" not in cuda.past_of["second a"]


def test_the_result_may_be_used_on_the_callers_stream(cuda: SimulatedCuda, ring: Ring) -> None:
    result = ring[0](cuda.tensor("a"))
    assert result.recorded == {cuda.current_stream("cuda:1")}


def test_a_stage_on_the_cpu_waits_for_the_device_before_it(cuda: SimulatedCuda, threads: ThreadPoolExecutor) -> None:
    class CpuStage:
        device = "cpu"
        max_batch_size = 1

        def __call__(self, items: Sequence[SimulatedTensor]) -> Sequence[str]:
            assert cuda.running.is_set()
            return [item.label for item in items]

    pipeline = Pipeline([CudaStage(cuda, "first", "cuda:0"), CpuStage()])
    cuda.hold()
    call = threads.submit(pipeline, cuda.tensor("a"))
    wait_until(lambda: pipeline._runners and waits_in(Event.synchronize, stage_thread(pipeline, 2)), PATIENCE_S)
    cuda.release()
    assert call.result(PATIENCE_S) == "a"


def test_a_failed_items_memory_is_kept_until_the_device_is_done_with_it(
    cuda: SimulatedCuda, ring: Ring, threads: ThreadPoolExecutor
) -> None:
    ring[2].failing["a"] = ValueError("bad")
    cuda.hold()
    call = threads.submit(ring[0], cuda.tensor("a"))
    (caller,) = threads._threads
    wait_until(lambda: ring[2].batches == ["a"] and waits_in(Event.synchronize, caller), PATIENCE_S)
    assert not call.done()
    cuda.release()
    with pytest.raises(ValueError, match="bad"):
        call.result(PATIENCE_S)


def test_an_item_that_cannot_be_copied_fails_alone(cuda: SimulatedCuda, ring: Ring) -> None:
    cuda.too_large.add("a")
    with pytest.raises(torch.OutOfMemoryError):
        ring[0](cuda.tensor("a"))
    assert ring[0](cuda.tensor("b")).label == "b"


def test_after_running_out_of_memory_the_allocators_cache_is_given_back(
    cuda: SimulatedCuda, threads: ThreadPoolExecutor
) -> None:
    stage = CudaStage(cuda, "only", "cuda:0", max_batch_size=2)
    stage.failing = {labels: torch.OutOfMemoryError() for labels in ("a+b", "b+a")}
    pipeline = Pipeline([stage], max_batch_delay_ms=PATIENCE_S * 1e3)
    assert {result.label for result in threads.map(pipeline, [cuda.tensor(label) for label in "ab"])} == {"a", "b"}
    assert cuda.emptied == 1


def test_a_lost_device_reaches_the_caller_and_ends_no_thread(cuda: SimulatedCuda, ring: Ring) -> None:
    cuda.lost = RuntimeError("CUDA error: an illegal memory access was encountered")
    for label in "abcd":
        with pytest.raises(RuntimeError, match="CUDA error"):
            ring[0](cuda.tensor(label))


def test_a_stages_time_is_what_the_device_measured(cuda: SimulatedCuda, ring: Ring) -> None:
    with hops.recording() as spans:
        ring[0](cuda.tensor("a"))
    assert [span.name for span in spans] == ["stage_1_ms", "stage_2_ms"]
    assert [span.milliseconds for span in spans] == [pytest.approx(250.0)] * 2
    assert spans[0].ended <= spans[1].started
