"""Real processes: the container, the load generator, the serial reference."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import pytest

from bench import measure as measuring
from bench.bare_loops import BareLoops
from bench.bench_error import BenchError
from bench.child import Child
from bench.measure import measure
from bench.memory import PeakWatch
from bench.model_folder import make_model_folder
from bench.setup import make_setup
from bench.simulation import Simulation
from bench.workload import WORKLOADS, Workload
from support import wait_until

FAST = Simulation(preprocess_ms=1.0, stage_1_ms=2.0, stage_2_ms=3.0, postprocess_ms=1.0)


@pytest.fixture
def fast() -> Workload:
    return dataclasses.replace(WORKLOADS["sim"], simulation=FAST)


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LOGS", tmp_path)


@pytest.mark.slow
def test_the_simulation_is_served_at_the_engines_socket(fast: Workload) -> None:
    setup = make_setup(fast, devices=1, concurrency=(4,), front_end="engine", seconds=1.0, warmup_s=0.2)
    (result,) = measure(setup)
    assert result.errors == {}
    assert result.limit_per_second == pytest.approx(200.0)
    assert result.requests == pytest.approx(result.requests_per_second * result.seconds)
    # An ideal that can be passed is none; and a device that sleeps 5 ms is not held by something else most of the time.
    assert result.ratio is not None
    assert 0.2 < result.ratio <= 1.01
    assert FAST.lone_ms() <= result.p50_ms <= result.p99_ms
    assert {"engine", "pool", "replicas", "client"} <= result.cpu_ms_per_request.keys()
    assert result.pss_mib["replicas"] > 1
    assert result.hops_ms["stage_2_ms"] >= 3.0
    assert "SIM_DEVICE_DIR" not in result.settings  # a path of this machine


@pytest.mark.slow
def test_over_http_the_devices_say_what_they_did(fast: Workload) -> None:
    setup = make_setup(fast, devices=2, concurrency=(8,), front_end="http", seconds=2.5, warmup_s=0.5)
    (result,) = measure(setup)
    assert result.errors == {}
    assert {"front end", "engine", "pool", "replicas", "client"} <= result.cpu_ms_per_request.keys()
    assert not {"java", "launcher"} & result.cpu_ms_per_request.keys()
    assert [each.device for each in result.device_time] == ["cpu:0", "cpu:1"]
    for each in result.device_time:
        assert each.busy > 0.2
        assert each.busy + sum(each.idle.values()) == pytest.approx(1.0)
        assert 1.0 < each.seconds < 4.0


def test_bare_loops_give_the_right_answers_and_a_rate(fast: Workload, tmp_path: Path) -> None:
    make_model_folder(fast, tmp_path / "ml")
    (tmp_path / "locks").mkdir()
    with BareLoops(fast, tmp_path / "ml", 2, FAST.environment(2, str(tmp_path / "locks"))) as loops:
        answers = [path.read_bytes() for path in sorted(loops.folder.glob("*.expected"))]
        assert len(answers) == len(fast.inputs())
        assert all(answer.startswith(b"\x89PNG") for answer in answers)
        # 7 ms each and no less; two loops, that meet on their devices.
        assert 20 < loops.run(0.3) <= 2 * 1000 / 7


def test_a_program_that_ends_says_why(tmp_path: Path) -> None:
    child = Child("the program", ["sh", "-c", "echo the reason; exit 3"], {}, tmp_path / "log")
    try:
        with pytest.raises(BenchError, match=r"the program ended with exit code 3\n  \| the reason"):
            child.wait_until(lambda: False, 10)
    finally:
        child.stop(1)


def test_nothing_outlives_a_program_that_is_stopped(tmp_path: Path) -> None:
    child = Child("the program", ["sh", "-c", "trap '' TERM; echo started; while :; do sleep 1000; done"], {}, tmp_path / "log")
    child.wait_until(lambda: child.log.read_text() == "started\n", 10)
    began = time.monotonic()
    child.stop(0.2)
    assert time.monotonic() - began < 10
    assert not Path("/proc", str(child.pid)).exists()


def test_the_highest_figure_is_kept() -> None:
    figures, seen = [1.0, 5.0, 2.0], threading.Event()

    def look() -> float:
        if len(figures) == 1:
            seen.set()
            return figures[0]
        return figures.pop(0)

    watch = PeakWatch(look)
    watch.start()
    wait_until(seen.is_set, 10)
    assert watch.stop() == 5.0
