"""Devices that fail, through the whole container: what each failure costs, and what is done with the replica that had it."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from integration.endpoint import Endpoint
from integration.kinds import once_is_enough
from support import wait_until

pytestmark = [pytest.mark.faults, once_is_enough]

ASSERT = "device-side assert triggered"


class Devices:
    """A container over devices that fail as told."""

    def __init__(self, make: Callable[..., Endpoint], folder: Path, *, staged: bool = False, **environment: str) -> None:
        self.folder = folder / "faults"
        self.folder.mkdir()
        self.endpoint = make(
            DEVICE_FAULTS=str(self.folder),
            DEVICE_FAULTS_STAGES=str(int(staged)),
            MULTIGPU_PREPROCESS="pool",
            MULTIGPU_MAX_BATCH_SIZE="8",
            **environment,
        ).with_script("device_faults")
        self._numbers = itertools.count()

    def start(self) -> Devices:
        self.endpoint.start().ready()
        return self

    def ask(self, **told: Any) -> requests.Response:
        """A request unlike any other."""
        return self.endpoint.invoke({"number": next(self._numbers), **told})

    def ask_together(self, count: int, **told: Any) -> list[requests.Response]:
        with concurrent.futures.ThreadPoolExecutor(count) as threads:
            return list(threads.map(lambda _: self.ask(**told), range(count)))

    def once(self, name: str) -> str:
        """A file that is not there yet."""
        return str(self.folder / name)

    def replicas(self) -> dict[str, int]:
        return self.endpoint.worker_pids("replica-")

    def died(self) -> list[str]:
        return [event["worker"] for event in self.endpoint.events("worker_died") if event["worker"].startswith("replica-")]

    def all_are_back(self) -> bool:
        ready = [event for event in self.endpoint.events("worker_ready") if event["worker"].startswith("replica-")]
        return len(ready) - len(self.died()) == int(self.endpoint.environment["MULTIGPU_NUM_REPLICAS"])

    def all_are_well(self) -> None:
        assert {answer.status_code for answer in self.ask_together(4, work_s=0.01)} == {200}


def shared(kind: str, folder: Path, *, staged: bool) -> Iterator[Devices]:
    def make(**environment: str) -> Endpoint:
        return Endpoint(folder, MULTIGPU_FRONT_END=kind, **environment)

    devices = Devices(make, folder, staged=staged)
    try:
        yield devices.start()
    finally:
        devices.endpoint.clean_up()


@pytest.fixture(scope="module")
def stages(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    """Two replicas of a model with a stage."""
    yield from shared(kind, tmp_path_factory.mktemp("stages"), staged=True)


@pytest.fixture(scope="module")
def plain(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devices]:
    """Two replicas of a plain model."""
    yield from shared(kind, tmp_path_factory.mktemp("plain"), staged=False)


@pytest.fixture(params=["stages", "plain"])
def devices(kind: str, request: pytest.FixtureRequest) -> Iterator[Devices]:
    """Both, one after another; all is well before and afterwards."""
    devices: Devices = request.getfixturevalue(request.param)
    wait_until(devices.all_are_back, 15)
    yield devices
    wait_until(devices.all_are_back, 15)
    devices.all_are_well()


def in_one_line(answer: requests.Response) -> dict[str, Any]:
    assert len(answer.content) <= 500
    assert answer.content.count(b"\n") == 1
    assert all(word not in answer.text for word in ("CUDA", "GiB", "Error", "Traceback"))
    content: dict[str, Any] = json.loads(answer.content)
    return content


def test_running_out_of_memory_once_costs_one_request_a_second_try(devices: Devices) -> None:
    before, tried = devices.replicas(), len(devices.endpoint.events("request_tried_again"))
    assert devices.ask(ran_out=devices.once("ran-out")).status_code == 200
    (again,) = devices.endpoint.events("request_tried_again")[tried:]
    assert (again["because"], again["alone"]) == ("it ran out of memory", True)
    assert devices.replicas() == before


def test_what_is_too_large_by_itself_is_told_so_and_costs_no_replica(devices: Devices) -> None:
    before, died = devices.replicas(), len(devices.died())
    answer = devices.ask(memory=9)
    assert answer.status_code == 500
    told = in_one_line(answer)
    assert (told["error"], told["message"]) == ("out_of_memory", "the request needs more memory than there is")
    assert (devices.replicas(), len(devices.died())) == (before, died)


def test_a_lost_device_costs_its_process_and_no_request(devices: Devices) -> None:
    before, died = devices.replicas(), len(devices.died())
    answers = devices.ask_together(6, work_s=0.1, sticky_once=devices.once("lost"))
    assert {answer.status_code for answer in answers} == {200}
    (victim,) = devices.died()[died:]
    wait_until(lambda: devices.replicas()[victim] != before[victim], 15)
    others = [name for name in before if name != victim]
    assert [devices.replicas()[name] for name in others] == [before[name] for name in others]
    death = [event for event in devices.endpoint.events("worker_died") if event["worker"] == victim][-1]
    assert death["reason"] == "exit code 7"
    assert any("device-side assert" in event["reason"] for event in devices.endpoint.events("device_lost"))


def test_a_batch_that_does_not_fit_is_halved_and_the_ceiling_is_kept(stages: Devices) -> None:
    wait_until(stages.all_are_back, 15)
    before = stages.replicas()
    for _ in range(3):
        answers = stages.ask_together(24, memory=1, work_s=0.1)
        assert {answer.status_code for answer in answers} == {200}
        assert 1 < max(answer.json()["batch"] for answer in answers) <= 4
    assert stages.replicas() == before
    assert {event["max_batch_size"] for event in stages.endpoint.events("batch_ceiling")} <= {3, 4}


def test_a_device_that_is_lost_at_the_hand_over_to_a_stage_is_found_out(stages: Devices) -> None:
    wait_until(stages.all_are_back, 15)
    died = len(stages.died())
    assert stages.ask(hand_over=True, sticky_once=stages.once("lost-at-the-hand-over")).status_code == 200
    assert len(stages.died()) == died + 1
    stages.all_are_well()


def test_what_loses_every_device_costs_the_others_nothing(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    devices = Devices(new_endpoint, tmp_path, MULTIGPU_NUM_REPLICAS="3", MULTIGPU_PREPROCESS_WORKERS="2").start()
    devices.all_are_well()
    bad: list[requests.Response] = []

    def attack() -> None:
        for _ in range(3):  # each takes two of the three replicas
            wait_until(devices.all_are_back, 20)
            bad.append(devices.ask(sticky=ASSERT))

    def go_on() -> list[int]:
        codes = []
        while len(bad) < 3:
            codes.append(devices.ask(work_s=0.02).status_code)
        return codes

    with concurrent.futures.ThreadPoolExecutor(5) as threads:
        hostile = threads.submit(attack)
        good = [threads.submit(go_on) for _ in range(3)]
        codes = [code for each in good for code in each.result()]
        hostile.result()
    assert [(answer.status_code, in_one_line(answer)["error"]) for answer in bad] == [(422, "unprocessable")] * 3
    assert len(codes) > 20
    assert set(codes) == {200}
    assert len(devices.died()) == 6
    assert devices.endpoint.events("worker_given_up") == []


def test_a_device_that_loses_every_request_is_given_up_and_with_too_few_left_the_container_leaves(
    new_endpoint: Callable[..., Endpoint], tmp_path: Path
) -> None:
    devices = Devices(new_endpoint, tmp_path, MULTIGPU_MIN_REPLICAS="2")
    Path(devices.folder, "lost-0").touch()
    devices.start()
    codes: list[int] = []
    while devices.endpoint.exit_code() is None and len(codes) < 1000:
        try:
            codes.append(devices.ask(work_s=0.01).status_code)
        except requests.ConnectionError:
            break
    assert devices.endpoint.wait_exit(30) == 7
    served = len(list(itertools.takewhile(lambda code: code == 200, codes)))
    assert served >= 5  # each was tried once more, on the other
    assert set(codes[served:]) <= {503}  # while it left
    assert [event["slot"] for event in devices.endpoint.events("worker_given_up")] == [0]
    (too_few,) = devices.endpoint.events("too_few_workers")
    assert (too_few["kind"], too_few["at_least"]) == ("replica", 2)


@pytest.mark.soak
def test_a_replica_that_cannot_come_back_ends_the_container_within_its_load_time_and_a_grace(
    new_endpoint: Callable[..., Endpoint], tmp_path: Path
) -> None:
    devices = Devices(new_endpoint, tmp_path, MULTIGPU_NUM_REPLICAS="1").start()
    script = devices.endpoint.model_dir / "code" / "inference.py"
    script.write_text(
        "import time\n" + script.read_text().replace("    device = Device(", "    time.sleep(600)\n    device = Device(")
    )
    load_s = max(event["load_ms"] for event in devices.endpoint.events("worker_ready")) / 1e3
    started = time.monotonic()
    assert devices.ask(sticky=ASSERT).status_code in (503, 504)
    assert devices.endpoint.wait_exit(60) == 7
    assert time.monotonic() - started < 10 + 3 * (load_s + 2) + 5


def test_a_slow_replica_is_taken_out_probed_and_taken_back(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    devices = Devices(new_endpoint, tmp_path, MULTIGPU_NUM_REPLICAS="3").start()
    slow = Path(devices.folder, "slow-2")
    slow.write_text("8")

    def load_until(event: str, limit_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + limit_s
        while not (found := devices.endpoint.events(event)):
            assert {answer.status_code for answer in devices.ask_together(3, work_s=0.03)} == {200}
            assert time.monotonic() < deadline, event
        return found[0]

    taken_out = load_until("replica_taken_out", 30)
    assert taken_out["worker"] == "replica-2"
    assert taken_out["median_ms"] > 3 * taken_out["peers_median_ms"]
    assert taken_out["rests_s"] == 10
    answered_by = {answer.json()["replica"] for _ in range(5) for answer in devices.ask_together(4, work_s=0.01)}
    assert answered_by == {0, 1}
    metrics = requests.get(f"{devices.endpoint.url}/metrics", timeout=5).text
    assert 'multigpu_replica_taken_out{worker="replica-2"} 1.0' in metrics
    slow.unlink()
    assert load_until("replica_back", 30)["worker"] == "replica-2"
    answered_by = {answer.json()["replica"] for _ in range(5) for answer in devices.ask_together(4, work_s=0.01)}
    assert answered_by == {0, 1, 2}
    assert devices.died() == []


@pytest.mark.soak
def test_requests_of_all_sizes_take_no_replica_out(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    devices = Devices(new_endpoint, tmp_path, staged=True).start()
    sizes = [0.005, 0.1, 0.02, 0.2, 0.005, 0.01]
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        codes = list(threads.map(lambda i: devices.ask(work_s=sizes[i % len(sizes)]).status_code, range(240)))
    assert codes == [200] * 240
    assert devices.endpoint.events("replica_taken_out") == []
