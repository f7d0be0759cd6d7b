from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

import pytest

from multigpu_inference.arena import Arena
from multigpu_inference.context import Context
from multigpu_inference.engine.function_places import FunctionPlaces
from multigpu_inference.engine.place_finder import PlaceFinder
from multigpu_inference.engine.process_pool import ProcessPool
from multigpu_inference.engine.replica import Replicas
from multigpu_inference.engine.request import Request
from multigpu_inference.engine.request_arena import RequestArena
from multigpu_inference.engine.script_runner import ScriptRunner
from multigpu_inference.engine.trial import run_trial
from multigpu_inference.engine.worker_process import Reply
from multigpu_inference.errors import BadRequest, OutOfMemory, PayloadTooLarge, ServingError, WorkerDied, WorkerKilled
from multigpu_inference.ipc import Buffer
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, PREDICT_FN, STOCK_ORDER, TRANSFORM_FN, Invocation, ScriptInfo, Task
from multigpu_inference.user_module import UserModule

FUNCTIONS = frozenset({"model_fn", INPUT_FN, PREDICT_FN, OUTPUT_FN})
ORDINARY = """
import random, threading
STATE = None
def model_fn(model_dir):
    globals().update(STATE="loaded")  # not to be seen in the code
    return 10
def input_fn(body, content_type): return float(body)
def predict_fn(data, model): return data * model
def output_fn(prediction, accept): return str(prediction), "text/plain"
"""
TRANSFORM = """
def model_fn(model_dir): return 10
def transform_fn(model, body, content_type, accept): return f"{model} {body}"
"""


class Workers:
    """A group of one worker, in this process, with a module of its own."""

    def __init__(self, name: str, text: str, *, with_model: bool, device: str = "cpu") -> None:
        module = ModuleType("inference")
        exec(text, module.__dict__)
        script = UserModule(module)
        model = script.call("model_fn", Context(), "/m") if with_model else None
        self.tasks: list[Task] = []
        self.fails: dict[str, ServingError] = {}  # by the first function of a task
        self.trial_s = 0.0  # how long a trial takes
        self._name = name
        self._is_replica = with_model
        self._runner = ScriptRunner(script, Context(), model, device)

    async def run(self, task: Task, blobs: Sequence[Any], arena: RequestArena, **how: bool) -> Reply:
        await asyncio.sleep(self.trial_s if task.trial else 0)  # as a worker would, let others go on
        self.tasks.append(task)
        if task.steps[0] in self.fails:
            raise self.fails[task.steps[0]]
        given: list[Buffer] = [bytearray(arena.memory.read(blob)) for blob in blobs]
        result, out = run_trial(self._runner, task, given) if task.trial and self._is_replica else self._runner.run(task, given)
        return Reply(result, [bytes(blob) for blob in out], self._name)


class Service:
    """Places, with a pool and replicas of one script."""

    def __init__(
        self,
        text: str = "",
        *,
        preprocess: str = "auto",
        base: str = ORDINARY,
        script: ScriptInfo | None = None,
        device: str = "cpu",
    ) -> None:
        self.pool = Workers("pool-0", base + text, with_model=False)
        self.replicas = Workers("replica-0", base + text, with_model=True, device=device)
        self.places = FunctionPlaces(preprocess, script or ScriptInfo(functions=FUNCTIONS))
        self.finder = PlaceFinder(self.places, cast(ProcessPool, self.pool), cast(Replicas, self.replicas))

    async def answer(self, body: bytes = b"2", limit_s: float = 60.0, *, alone: bool = False) -> tuple[bytes, str]:
        now = time.monotonic()
        request = Request(Invocation("r-1", "text/csv", "a/b", {}, now, now + limit_s), body, RequestArena(Arena.create()))
        request.alone = alone
        async with asyncio.timeout_at(request.invocation.deadline):
            answer = await self.finder.answer(request)
            return request.arena.memory.read(answer), request.content_type

    def steps(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        return self.places.steps


POOL = ((INPUT_FN,), (PREDICT_FN,), (OUTPUT_FN,))
REPLICA: tuple[tuple[str, ...], ...] = ((), STOCK_ORDER, ())


# What needs no trial


def test_both_run_in_the_pool_where_that_is_said() -> None:
    service = Service(preprocess="pool")
    assert service.steps() == POOL
    assert (service.places.unknown, service.places.use_pool) == (False, True)


def test_both_run_in_the_replica_worker_where_that_is_said() -> None:
    service = Service(preprocess="replica")
    assert service.steps() == REPLICA
    assert (service.places.unknown, service.places.use_pool) == (False, False)


@pytest.mark.parametrize("preprocess", ["auto", "pool", "replica"])
def test_transform_fn_runs_in_the_replica_worker(preprocess: str) -> None:
    places = FunctionPlaces(preprocess, ScriptInfo(functions=frozenset({"model_fn", TRANSFORM_FN})))
    assert places.steps == ((), (TRANSFORM_FN,), ())
    assert not places.use_pool


@pytest.mark.parametrize("preprocess", ["auto", "pool"])
def test_a_script_that_cannot_be_imported_without_a_gpu_stays(preprocess: str) -> None:
    service = Service(preprocess=preprocess, script=ScriptInfo(import_error="no GPU"))
    assert service.steps() == REPLICA
    assert not service.places.use_pool
    assert asyncio.run(service.answer()) == (b"20.0", "text/plain")


def test_a_script_with_transform_fn_that_cannot_be_imported_without_a_gpu_is_answered() -> None:
    service = Service(base=TRANSFORM, script=ScriptInfo(import_error="no GPU"))
    assert asyncio.run(service.answer()) == (b"10 2", "a/b")


def test_with_auto_the_pool_is_needed_to_find_out() -> None:
    service = Service()
    assert (service.places.unknown, service.places.use_pool) == (True, True)


# The trial


@pytest.mark.parametrize("preprocess", ["auto", "pool", "replica"])
def test_the_answer_is_the_same_wherever_functions_run(preprocess: str) -> None:
    async def main() -> None:
        service = Service(preprocess=preprocess)
        for _ in range(3):
            assert await service.answer() == (b"20.0", "text/plain")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", POOL),
        ("def input_fn(body, content_type): return random.random()", POOL),
        ("def output_fn(prediction, accept): return str(random.random())", ((INPUT_FN,), (PREDICT_FN, OUTPUT_FN), ())),
        ("def input_fn(body, content_type): return 2.0 if STATE else 3.0", ((), (INPUT_FN, PREDICT_FN), (OUTPUT_FN,))),
        ("def input_fn(body, content_type): return len(STATE)", ((), (INPUT_FN, PREDICT_FN), (OUTPUT_FN,))),
        (
            "def input_fn(body, content_type): return threading.Lock()\ndef predict_fn(data, model): return 1",
            ((), (INPUT_FN, PREDICT_FN), (OUTPUT_FN,)),
        ),
        ("def output_fn(prediction, accept): return str(STATE)", ((INPUT_FN,), (PREDICT_FN, OUTPUT_FN), ())),
        ("def output_fn(prediction, accept): return len(STATE) * 'x'", ((INPUT_FN,), (PREDICT_FN, OUTPUT_FN), ())),
        ("def output_fn(prediction, accept): return 'x', str(STATE)", ((INPUT_FN,), (PREDICT_FN, OUTPUT_FN), ())),
        ("def predict_fn(data, model): return threading.Lock()", ((INPUT_FN,), (PREDICT_FN, OUTPUT_FN), ())),
        (
            "def input_fn(body, content_type): return len(STATE)\ndef output_fn(prediction, accept): return str(STATE)",
            REPLICA,
        ),
    ],
    ids=[
        "ordinary", "random input", "random output", "input of another value", "input that fails", "input that does not pickle",
        "output of another value", "output that fails", "output of another type", "prediction that does not pickle", "neither",
    ],
)  # fmt: skip
def test_each_function_runs_where_it_can(text: str, steps: tuple[tuple[str, ...], ...]) -> None:
    async def main() -> None:
        service = Service(text)
        first = await service.answer()
        assert service.steps() == steps
        assert not service.places.unknown
        if "random" not in text and "lock" not in first[0].decode():
            assert await service.answer() == first

    asyncio.run(main())


def test_where_a_function_runs_is_said_once_with_the_reason_and_the_cost(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        service = Service("def output_fn(prediction, accept): return str(STATE)")
        for _ in range(3):
            await service.answer()

    asyncio.run(main())
    said = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["function"], line["runs_in"]) for line in said] == [("input_fn", "pool"), ("output_fn", "replica")]
    assert "because" not in said[0]
    assert "depends on what model_fn has set" in said[1]["because"]
    assert "the replica's device waits" in said[1]["costs"]


def test_requests_that_come_during_a_trial_wait_for_what_it_finds() -> None:
    async def main() -> None:
        service = Service()
        answers = await asyncio.gather(*(service.answer(b"%d" % i) for i in range(5)))
        assert [body for body, _ in answers] == [b"0.0", b"10.0", b"20.0", b"30.0", b"40.0"]
        assert [task.trial for task in service.replicas.tasks] == [True, False, False, False, False]

    asyncio.run(main())


def test_a_bad_first_request_gets_its_error_and_the_next_one_finds_out() -> None:
    async def main() -> None:
        service = Service()
        with pytest.raises(BadRequest):
            await service.answer(b"\xff")
        assert service.places.unknown
        assert await service.answer() == (b"20.0", "text/plain")
        assert service.steps() == POOL

    asyncio.run(main())


@pytest.mark.parametrize("error", [PayloadTooLarge(), OutOfMemory(), WorkerDied(), WorkerKilled()])
@pytest.mark.parametrize("function", [INPUT_FN, OUTPUT_FN])
def test_what_says_nothing_of_a_function_decides_nothing(error: ServingError, function: str) -> None:
    async def main() -> None:
        service = Service()
        service.pool.fails[function] = error
        with pytest.raises(type(error)):
            await service.answer()
        assert service.places.unknown
        del service.pool.fails[function]
        await service.answer()
        assert service.steps() == POOL

    asyncio.run(main())


@pytest.mark.parametrize(
    ("died", "steps"), [(WorkerDied(), ((), (INPUT_FN, PREDICT_FN), (OUTPUT_FN,))), (WorkerKilled(), None)]
)
def test_a_function_that_ends_its_process_a_second_time_stays_unless_that_came_from_outside(
    died: WorkerDied, steps: tuple[tuple[str, ...], ...] | None
) -> None:
    async def main() -> None:
        service = Service()
        service.pool.fails[INPUT_FN] = died
        try:
            await service.answer(alone=True)
        except WorkerKilled:
            assert service.places.unknown
        assert (None if service.places.unknown else service.steps()) == steps

    asyncio.run(main())


def test_a_first_request_that_is_given_up_lets_the_next_one_find_out() -> None:
    async def main() -> None:
        service = Service()
        first, second = (asyncio.create_task(service.answer()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == (b"20.0", "text/plain")
        assert not service.places.unknown

    asyncio.run(main())


def test_the_places_of_device_tensors_go_with_every_task() -> None:
    service = Service()
    service.places.settle(input_in_pool=True, output_in_pool=True)
    service.places.add_tensors(frozenset({".x"}), frozenset({".x", ".y"}))
    asyncio.run(service.answer())
    assert (service.replicas.tasks[0].device_paths, service.replicas.tasks[0].tensor_paths) == (
        frozenset({".x"}),
        frozenset({".x", ".y"}),
    )


def test_data_with_a_tensor_where_none_was_is_looked_at_in_a_trial_of_its_own() -> None:
    text = """
import torch
def input_fn(body, content_type): return {"x": torch.ones(2) if body == "2" else None}
def predict_fn(data, model): return data["x"] is None
"""

    async def main() -> None:
        service = Service(text, device="meta")
        answers = [await service.answer(body) for body in (b"1", b"1", b"2", b"2")]
        assert [body for body, _ in answers] == [b"True", b"True", b"False", b"False"]
        # The third goes to a replica, comes back, and goes again as a trial.
        assert [task.trial for task in service.replicas.tasks] == [True, False, False, True, False]
        assert service.places.tensor_paths == frozenset({".x"})

    asyncio.run(main())


def test_where_trials_take_longer_than_a_request_may_all_stays_in_the_replica() -> None:
    async def main() -> None:
        service = Service()
        service.pool.trial_s = 60
        for _ in range(3):
            assert service.places.unknown
            with pytest.raises(TimeoutError):
                await service.answer(limit_s=0.05)
        assert service.steps() == REPLICA
        assert await service.answer() == (b"20.0", "text/plain")

    asyncio.run(main())


def test_requests_that_had_no_time_left_for_a_trial_settle_nothing() -> None:
    async def main() -> None:
        service = Service()
        service.pool.trial_s = 60
        slow, *waiting = (asyncio.create_task(service.answer(limit_s=limit_s)) for limit_s in (0.1, *[0.1001] * 20))
        await asyncio.wait([slow, *waiting])
        service.pool.trial_s = 0
        assert await service.answer() == (b"20.0", "text/plain")
        assert service.steps() == POOL

    asyncio.run(main())


def test_what_is_known_is_not_forgotten_for_data_of_another_structure_that_takes_too_long() -> None:
    text = """
import torch
def input_fn(body, content_type): return {"x": torch.ones(2) if body == "2" else None}
def predict_fn(data, model): return data["x"] is None
"""

    async def main() -> None:
        service = Service(text, device="meta")
        await service.answer(b"1")
        assert service.steps() == POOL
        service.pool.trial_s = 60
        for _ in range(4):
            with pytest.raises(TimeoutError):
                await service.answer(b"2", limit_s=0.05)
        assert service.steps() == POOL

    asyncio.run(main())


def test_a_moved_input_needs_no_trial_again() -> None:
    async def main() -> None:
        service = Service()
        await service.answer()
        await service.answer()
        assert [task.steps for task in service.pool.tasks] == [(INPUT_FN,), (OUTPUT_FN,), (INPUT_FN,), (OUTPUT_FN,)]
        assert [task.steps for task in service.replicas.tasks] == [STOCK_ORDER, (PREDICT_FN,)]

    asyncio.run(main())
