"""Several threads of one stage that share its weights: `MULTIGPU_STREAMS_PER_STAGE`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from multigpu_inference.engine.job import Job
from multigpu_inference.engine.pipeline import Pipeline
from multigpu_inference.engine.replica_set import ReplicaSet
from multigpu_inference.engine.stage_runner import StageRunner
from support import wait_until
from unit.container.multigpu_inference.engine.simulated_cuda import SimulatedCuda
from unit.container.multigpu_inference.engine.waiting import waits_in

PATIENCE_S = 20.0


class FunctionStage:
    """A stage of one function of a batch."""

    device = "cpu"

    def __init__(self, function: Callable[[Sequence[Any]], Sequence[Any]], max_batch_size: int = 1) -> None:
        self._function = function
        self.max_batch_size = max_batch_size

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        return self._function(items)


class Together:
    """Lets nobody go on before so many are there, and keeps the most that were there at once."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count, timeout=PATIENCE_S)
        self._counting = threading.Lock()
        self._inside = 0
        self.most = 0

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        with self._counting:
            self._inside += 1
            self.most = max(self.most, self._inside)
        self._barrier.wait()
        with self._counting:
            self._inside -= 1
        return items


@pytest.fixture
def small_stacks() -> Any:
    """Threads by the hundred need not reserve eight megabytes of addresses each."""
    before = threading.stack_size(256 << 10)
    yield
    threading.stack_size(before)


def call_at_once(pipeline: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(len(items)) as threads:
        return list(threads.map(pipeline, items))


def test_a_stage_works_on_as_many_batches_as_it_has_streams() -> None:
    work = Together(3)
    assert call_at_once(Pipeline([FunctionStage(work)], streams=3), range(9)) == list(range(9))
    assert work.most == 3


def test_every_stage_has_its_own_streams() -> None:
    pipeline = Pipeline([FunctionStage(Together(2)), FunctionStage(Together(2))], streams=2)
    assert call_at_once(pipeline, range(4)) == list(range(4))


@pytest.mark.usefixtures("small_stacks")
def test_960_inferences_at_a_time_share_one_copy_of_the_weights() -> None:
    network, work = torch.nn.Linear(4, 4), Together(960)
    pipeline = Pipeline([FunctionStage(lambda items: [network(item) for item in work(items)])], streams=960)
    items = [torch.full((1, 4), float(number)) for number in range(960)]
    with torch.no_grad():
        expected = [network(item) for item in items]
    assert all(map(torch.equal, call_at_once(pipeline, items), expected))
    assert work.most == 960
    pipeline.close()


@pytest.mark.parametrize("requests", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_answers_under_64_threads_are_those_of_serial_calls_bit_for_bit(requests: int) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)).eval()
    items = [torch.rand(1, 3, 12 + number % 4, 12) for number in range(100)]
    with torch.no_grad():
        expected = [network(item) for item in items]
    pipeline = Pipeline([FunctionStage(lambda batch: [network(item) for item in batch])], streams=4)

    def is_as_expected(number: int) -> bool:
        return torch.equal(pipeline(items[number % 100]), expected[number % 100])

    with ThreadPoolExecutor(64) as threads:
        assert all(threads.map(is_as_expected, range(requests)))


def test_a_bad_item_fails_alone_beside_others() -> None:
    def work(items: Sequence[int]) -> Sequence[int]:
        if any(item % 7 == 0 for item in items):
            raise LookupError
        return items

    def call(item: int) -> int | None:
        try:
            result: int = pipeline(item)
            return result
        except LookupError:
            return None

    pipeline = Pipeline([FunctionStage(work, 4), FunctionStage(list, 4)], streams=3)
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(call, range(400))) == [None if item % 7 == 0 else item for item in range(400)]


def test_a_batch_that_does_not_fit_is_split_whichever_thread_had_it() -> None:
    sizes: list[int] = []

    def fit_two(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        if len(items) > 2:
            raise MemoryError
        return items

    runner = StageRunner(FunctionStage(fit_two, 8), 1, 8, 0.0, None, threads=3)
    for _ in range(2):
        jobs = [Job(number) for number in range(24)]
        runner.hand(jobs)
        runner.start()
        assert [job.result() for job in jobs] == list(range(24))
        sizes, before = [], sizes
    assert max(before) <= 2  # the second round knows
    runner.close()


def test_a_stage_ends_when_all_its_threads_have_what_they_took() -> None:
    go_on = threading.Event()

    def wait(items: Sequence[int]) -> Sequence[int]:
        if items[0] == 0:
            assert go_on.wait(PATIENCE_S)
        return items

    second = StageRunner(FunctionStage(list), 2, 1, 0.0, None, threads=2)
    first = StageRunner(FunctionStage(wait), 1, 1, 0.0, second, threads=2)
    jobs = [Job(number) for number in range(3)]
    first.hand(jobs)
    first.start()
    second.start()
    first.close()
    assert [job.result() for job in jobs[1:]] == [1, 2]
    wait_until(lambda: sum(thread.is_alive() for thread in first._threads) == 1, PATIENCE_S)
    go_on.set()  # the stage behind still takes what the last thread has
    assert jobs[0].result() == 0
    for thread in (*first._threads, *second._threads):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_thread_that_finds_nothing_left_gives_the_room_up() -> None:
    door = threading.Lock()

    class Exclusive(FunctionStage):
        def room(self) -> AbstractContextManager[Any]:
            return door

    def holds_one(items: Sequence[Any]) -> Sequence[Any]:
        assert door.locked()
        return items

    pipeline = Pipeline([Exclusive(holds_one)], streams=4)
    assert call_at_once(pipeline, range(40)) == list(range(40))
    (runners,) = pipeline._runners.values()
    (runner,) = runners
    assert isinstance(runner, StageRunner)
    for thread in runner._threads:
        wait_until(lambda waiting=thread: waits_in(threading.Condition.wait, waiting), PATIENCE_S)  # type: ignore[misc]
    assert door.acquire(timeout=PATIENCE_S)  # another replica has its turn
    door.release()


def test_replicas_have_as_many_streams_as_the_setting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_STREAMS_PER_STAGE", "2")
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    monkeypatch.setenv("MULTIGPU_NUM_REPLICAS", "1")
    work = Together(2)
    assert call_at_once(ReplicaSet.load(lambda devices: [FunctionStage(work)], 1), range(2)) == [0, 1]


def test_on_a_gpu_each_thread_has_a_stream_and_its_own_batches_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimulatedCuda(monkeypatch)
    together = threading.Barrier(2, timeout=PATIENCE_S)
    streams = set()

    class CudaStage:
        device = torch.device("cuda:0")
        max_batch_size = 1

        def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
            together.wait()
            (item,) = items
            stream = cuda.current_stream("cuda:0")
            streams.add(stream)
            item.read(stream)
            return [cuda.tensor(item.label, "cuda:0", stream.issue(f"work on {item.label}"))]

    pipeline = Pipeline([CudaStage()], streams=2)
    cuda.hold()
    with ThreadPoolExecutor(5) as threads:
        calls = [threads.submit(pipeline, cuda.tensor(label)) for label in "abcd"]
        wait_until(lambda: sum(work.startswith("work") for work in cuda.past_of) == 4, PATIENCE_S)  # two on each stream
        cuda.release()
        assert [call.result(PATIENCE_S).label for call in calls] == list("abcd")
    assert len(streams) == 2
    pasts = [sum(work.startswith("work") for work in cuda.past_of[f"work on {label}"]) for label in "abcd"]
    assert sorted(pasts) == [0, 0, 1, 1]  # a batch stands behind those of its own stream only
