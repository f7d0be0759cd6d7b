from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from multigpu_inference import Branch, Branches, Pipeline, ReplicaSet
from multigpu_inference.engine import hops, interest
from multigpu_inference.engine.interest import Interest, Withdrawals
from multigpu_inference.engine.stage import Stage
from multigpu_inference.errors import BadRequest, ClientGone, DeadlineExceeded
from support import wait_until
from unit.container.multigpu_inference.engine.simulated_cuda import Event, SimulatedCuda, SimulatedTensor
from unit.container.multigpu_inference.engine.waiting import waits_in

PATIENCE_S = 10.0


def times(factor: int) -> Any:
    return lambda items: [item * factor for item in items]


def echo(items: Sequence[Any]) -> Sequence[Any]:
    return list(items)


class Held:
    """A model that works until it may go on, and remembers what it was given."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        self.items += items
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)
        return list(items)


def failing_after(begun: threading.Event) -> Any:
    """A model that fails once another has begun."""

    def work(items: Sequence[Any]) -> Sequence[Any]:
        assert begun.wait(PATIENCE_S)
        raise LookupError("bad item")

    return work


def threads_of(pipeline: Pipeline) -> list[threading.Thread]:
    (runners,) = pipeline._runners.values()
    (runner,) = runners
    return [thread for branch in runner._runners.values() for thread in branch._threads]  # type: ignore[attr-defined]


def test_the_result_is_a_dict_of_what_the_branches_made() -> None:
    branches = Branches({"double": Branch(times(2)), "triple": Branch(times(3))})
    assert Pipeline([branches])(5) == {"double": 10, "triple": 15}


def test_it_is_a_stage_that_may_stand_anywhere_in_a_chain() -> None:
    branches = Branches({"double": Branch(times(2)), "triple": Branch(times(3))})
    add = Branch(lambda items: [item["double"] + item["triple"] for item in items])
    assert isinstance(branches, Stage)
    assert Pipeline([Branch(times(10)), branches, add])(5) == 250
    assert Pipeline([Branches({"a": Branch(branches)}), Branch(echo)])(1) == {"a": {"double": 2, "triple": 3}}


def test_called_by_itself_it_takes_a_list_of_items() -> None:
    branches = Branches({"double": Branch(times(2)), "same": Branch(echo)})
    assert branches([1, 2, 3]) == [{"double": 2, "same": 1}, {"double": 4, "same": 2}, {"double": 6, "same": 3}]


def test_branches_work_at_the_same_time() -> None:
    both = threading.Barrier(3, timeout=PATIENCE_S)

    def work(items: Sequence[Any]) -> Sequence[Any]:
        both.wait()
        return items

    assert Pipeline([Branches({name: Branch(work) for name in "abc"})])(1) == {"a": 1, "b": 1, "c": 1}


def test_a_branch_has_as_many_threads_as_it_asks_for() -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)

    def work(items: Sequence[Any]) -> Sequence[Any]:
        both.wait()
        return items

    pipeline = Pipeline([Branches({"a": Branch(work, threads=2), "b": Branch(echo)})])
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(pipeline, (1, 2))) == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]


def test_each_branch_forms_batches_of_its_own() -> None:
    held, sizes = Held(), list[int]()

    def count(items: Sequence[Any]) -> Sequence[Any]:
        sizes.append(len(items))
        return items

    pipeline = Pipeline([Branches({"slow": Branch(held, max_batch_size=8), "one": Branch(count)})])
    with ThreadPoolExecutor(9) as threads:
        calls = [threads.submit(pipeline, 0)]
        wait_until(lambda: held.items == [0], PATIENCE_S)
        calls += [threads.submit(pipeline, item) for item in range(1, 9)]
        wait_until(lambda: len(sizes) == 9, PATIENCE_S)  # it does not wait for the slow one
        held.go_on.set()
        assert [call.result(PATIENCE_S)["slow"] for call in calls] == list(range(9))
    assert sizes == [1] * 9


def test_the_answers_are_those_of_the_branches_one_after_another_bit_for_bit() -> None:
    torch.manual_seed(0)
    networks = {name: torch.nn.Conv2d(3, 4, 3) for name in "ab"}
    items = [torch.rand(1, 3, 16 + number % 3, 16) for number in range(60)]
    with torch.no_grad():
        expected = [{name: network(item) for name, network in networks.items()} for item in items]
    one_after_another = {name: (lambda batch, n=network: [n(item) for item in batch]) for name, network in networks.items()}
    pipeline = Pipeline([Branches({name: Branch(call, threads=2) for name, call in one_after_another.items()})])
    with ThreadPoolExecutor(8) as threads:
        for result, reference in zip(threads.map(pipeline, items), expected, strict=True):
            assert list(result) == ["a", "b"]
            assert all(torch.equal(result[name], reference[name]) for name in "ab")


def test_what_a_stage_says_of_its_batches_holds_for_a_branch() -> None:
    class Keyed:
        device = "cpu:1"
        max_batch_size = 4

        def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
            return items

        def batch_key(self, item: Any) -> str:
            return "all"

    branch = Branch(Keyed())
    assert (branch.device, branch.max_batch_size, branch.batch_key(1)) == ("cpu:1", 4, "all")
    assert not hasattr(branch, "room")
    assert Branch(Keyed(), "cpu", max_batch_size=2).max_batch_size == 2


def test_its_device_is_its_first_gpu() -> None:
    assert Branches({"a": Branch(echo), "b": Branch(echo, "cuda:1")}).device == "cuda:1"
    assert Branches({"a": Branch(echo)}).device == "cpu"
    assert Branches({"a": Branch(echo, max_batch_size=3), "b": Branch(echo)}).max_batch_size == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 1, "device": "cuda:0"}, "runs on the CPU"),
        ({"processes": 1, "threads": 1}, "runs on the CPU"),
        ({"threads": -1}, "at least one"),
        ({"processes": -1}, "at least one"),
        ({"max_batch_size": 0}, "at least one"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Branch(echo, **options)


def test_without_a_branch_there_is_no_stage() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Branches({})


# Failures


def fail(items: Sequence[Any]) -> Sequence[Any]:
    raise LookupError("bad item")


def test_an_error_fails_the_item_and_says_which_branch() -> None:
    pipeline = Pipeline([Branches({"good": Branch(echo), "bad": Branch(fail)})])
    with pytest.raises(LookupError, match="bad item") as caught:
        pipeline(1)
    assert caught.value.__notes__ == ["raised by the branch 'bad'"]


def test_an_error_with_a_status_keeps_it() -> None:
    def refuse(items: Sequence[Any]) -> Sequence[Any]:
        raise BadRequest("no face in it")

    with pytest.raises(BadRequest, match="no face in it"):
        Pipeline([Branches({"good": Branch(echo), "bad": Branch(refuse)})])(1)


def test_only_the_item_that_fails_fails() -> None:
    def odd(items: Sequence[int]) -> Sequence[int]:
        if any(item % 2 for item in items):
            raise LookupError
        return items

    def call(item: int) -> Any:
        try:
            return pipeline(item)
        except LookupError:
            return None

    pipeline = Pipeline([Branches({"a": Branch(odd, max_batch_size=4), "b": Branch(echo, threads=2)}), Branch(echo)])
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(call, range(200)))
    assert results == [None if item % 2 else {"a": item, "b": item} for item in range(200)]


def test_a_part_that_has_not_begun_when_another_failed_is_dropped() -> None:
    held = Held()
    pipeline = Pipeline([Branches({"held": Branch(held), "bad": Branch(lambda items: items if items == [1] else fail(items))})])
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(pipeline, 1)
        wait_until(lambda: held.items == [1], PATIENCE_S)
        second = threads.submit(pipeline, 2)
        (runners,) = pipeline._runners.values()
        waiting = runners[0]._runners["held"]._queue  # type: ignore[attr-defined]
        wait_until(lambda: len(waiting._waiting) == 1 and waiting._waiting[0].item.interest.lost("stage_1"), PATIENCE_S)
        held.go_on.set()
        assert first.result(PATIENCE_S) == {"held": 1, "bad": 1}
        with pytest.raises(LookupError):
            second.result(PATIENCE_S)
    assert held.items == [1]


def test_a_part_that_has_begun_is_waited_for() -> None:
    held = Held()
    pipeline = Pipeline([Branches({"held": Branch(held), "bad": Branch(failing_after(held.begun))})])
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(pipeline, 1)
        assert held.begun.wait(PATIENCE_S)
        (runners,) = pipeline._runners.values()
        bad = runners[0]._runners["bad"]  # type: ignore[attr-defined]
        wait_until(lambda: waits_in(threading.Condition.wait, bad._threads[0]), PATIENCE_S)  # it has failed already
        assert not call.done()
        held.go_on.set()
        with pytest.raises(LookupError):
            call.result(PATIENCE_S)


def test_nothing_is_worked_on_that_nobody_waits_for() -> None:
    seen: list[int] = []

    def look(items: Sequence[int]) -> Sequence[int]:
        seen.extend(items)
        return items

    pipeline = Pipeline([Branches({"a": Branch(look), "b": Branch(look)})])
    with interest.held(Interest(time.monotonic() - 1)), pytest.raises(DeadlineExceeded) as late:
        pipeline(1)
    withdrawals = Withdrawals.create(1)
    withdrawals.mark(0, withdrawn=True)
    with interest.held(Interest(time.monotonic() + PATIENCE_S, withdrawals)), pytest.raises(ClientGone):
        pipeline(2)
    assert seen == []
    assert not hasattr(late.value, "__notes__")  # no branch raised it
    assert pipeline(3) == {"a": 3, "b": 3}


def test_nothing_of_an_item_is_kept_when_it_is_done_or_has_failed() -> None:
    class Item:
        bad = False

    def look(items: Sequence[Item]) -> Sequence[Any]:
        if items[0].bad:
            raise LookupError
        return [[item] for item in items]

    pipeline = Pipeline([Branches({"a": Branch(look), "b": Branch(echo)}), Branch(echo)])
    gc.disable()  # what a cycle holds would stay until a collection
    try:
        for bad in (False, True):
            item = Item()
            item.bad = bad
            gone = weakref.ref(item)
            with contextlib.suppress(LookupError):
                pipeline(item)
            del item
            wait_until(lambda gone=gone: gone() is None, PATIENCE_S)  # type: ignore[misc]
    finally:
        gc.enable()


def test_closing_answers_who_waits_and_ends_the_threads() -> None:
    held = Held()
    pipeline = Pipeline([Branches({"held": Branch(held), "quick": Branch(echo)})])
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(pipeline, 1)]
        wait_until(lambda: held.items == [1], PATIENCE_S)
        calls.append(threads.submit(pipeline, 2))
        (runners,) = pipeline._runners.values()
        wait_until(lambda: len(runners[0]._runners["held"]._queue._waiting) == 1, PATIENCE_S)  # type: ignore[attr-defined]
        pipeline.close()
        held.go_on.set()
        assert [call.result(PATIENCE_S)["quick"] for call in calls] == [1, 2]
    for thread in threads_of(pipeline):
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="closed"):
        pipeline(3)


def test_a_span_lasts_from_the_first_branch_to_the_last() -> None:
    def nap(items: Sequence[Any]) -> Sequence[Any]:
        time.sleep(0.05)
        return items

    pipeline = Pipeline([Branches({"quick": Branch(echo), "slow": Branch(nap)})])
    with hops.recording() as spans:
        pipeline(1)
    (span,) = spans
    assert span.name == "stage_1_ms"
    assert span.milliseconds >= 50


def test_a_replica_set_takes_it_as_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    monkeypatch.setenv("MULTIGPU_NUM_REPLICAS", "2")
    model = ReplicaSet.load(lambda devices: [Branches({"on": Branch(lambda items: [devices[0]] * len(items))})], 1)
    assert [model(0)["on"] for _ in range(4)] == ["cpu:0", "cpu:1"] * 2


# On simulated GPUs


class Issuing:
    """Issues one piece of work for each batch; reads its items, as the simulation checks."""

    max_batch_size = 1

    def __init__(self, cuda: SimulatedCuda, name: str, device: str) -> None:
        self.device = torch.device(device)
        self._cuda, self._name = cuda, name
        self.issued = threading.Event()

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        (item,) = items
        assert item.device == self.device
        stream = self._cuda.current_stream(self.device)
        item.read(stream)
        made = stream.issue(f"{self._name} {item.label}")
        self.issued.set()
        return [self._cuda.tensor(item.label, self.device, made)]


class Reading:
    """On the CPU: may only be called when the device is done."""

    device, max_batch_size = "cpu", 1

    def __init__(self, cuda: SimulatedCuda) -> None:
        self._cuda = cuda

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        assert self._cuda.running.is_set()
        return [item.label for item in items]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimulatedCuda:
    return SimulatedCuda(monkeypatch)


def test_branches_on_gpus_have_streams_of_their_own_and_the_next_stage_waits_for_all(cuda: SimulatedCuda) -> None:
    first, second = Issuing(cuda, "first", "cuda:0"), Issuing(cuda, "second", "cuda:1")

    class Both(Issuing):
        def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
            for tensor in items[0].values():
                super().__call__([tensor])
            return items

    pipeline = Pipeline([Branches({"first": Branch(first), "second": Branch(second)}), Both(cuda, "both", "cuda:0")])
    result = pipeline(cuda.tensor("a"))
    assert list(result) == ["first", "second"]
    assert "second a" not in cuda.past_of["first a"]
    assert "first a" not in cuda.past_of["second a"]
    assert {"first a", "second a", "copy a to cuda:1"} <= cuda.past_of["both a"]  # the simulation fails on a race, too


def test_a_branch_on_the_cpu_gets_the_item_as_it_came_and_does_not_wait_for_the_gpu(cuda: SimulatedCuda) -> None:
    seen: list[Any] = []

    def look(items: Sequence[Any]) -> Sequence[Any]:
        seen.extend(items)
        return items

    branches = Branches({"gpu": Branch(Issuing(cuda, "work", "cuda:0")), "cpu": Branch(look)})
    cuda.hold()
    with ThreadPoolExecutor(1) as threads:
        item = cuda.tensor("a")
        call = threads.submit(Pipeline([branches]), item)
        wait_until(lambda: seen, PATIENCE_S)
        assert seen[0] is item
        assert not call.done()  # the caller waits for the GPU's part
        cuda.release()
        assert str(call.result(PATIENCE_S)["gpu"].device) == "cuda:0"


def test_a_branch_on_the_cpu_waits_for_what_a_gpu_makes_for_it(cuda: SimulatedCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedTensor, "cpu", lambda tensor: tensor, raising=False)
    branches = Branches({"gpu": Branch(Issuing(cuda, "gpu", "cuda:0")), "cpu": Branch(Reading(cuda))})
    stages: list[Stage] = [Issuing(cuda, "first", "cuda:0"), branches]
    cuda.hold()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(Pipeline(stages), cuda.tensor("a"))
        wait_until(lambda: "gpu a" in cuda.past_of, PATIENCE_S)  # issued without waiting
        cuda.release()
        assert call.result(PATIENCE_S)["cpu"] == "a"


def test_a_branch_on_the_cpu_waits_for_what_the_caller_is_still_making(
    cuda: SimulatedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedTensor, "cpu", lambda tensor: tensor, raising=False)
    branches = Branches({"cpu": Branch(Reading(cuda)), "gpu": Branch(Issuing(cuda, "gpu", "cuda:0"))})
    made = cuda.current_stream("cuda:0").issue("made")
    cuda.hold()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(Pipeline([branches]), cuda.tensor("a", "cuda:0", made))
        wait_until(lambda: "gpu a" in cuda.past_of, PATIENCE_S)
        cuda.release()
        assert call.result(PATIENCE_S)["cpu"] == "a"


def test_an_item_that_fails_keeps_its_memory_until_the_gpu_is_done_with_all_its_parts(cuda: SimulatedCuda) -> None:
    good = Issuing(cuda, "good", "cuda:0")
    branches = Branches({"good": Branch(good), "bad": Branch(failing_after(good.issued))})
    cuda.hold()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(Pipeline([branches]), cuda.tensor("a"))
        (caller,) = threads._threads
        wait_until(lambda: good.issued.is_set() and waits_in(Event.synchronize, caller), PATIENCE_S)
        assert not call.done()
        cuda.release()
        with pytest.raises(LookupError):
            call.result(PATIENCE_S)
