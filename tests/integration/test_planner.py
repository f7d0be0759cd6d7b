"""The planner on simulated devices: what it recommends beside the best of what the engine itself serves, and how it fails."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.simulation import BATCHED, UNBATCHED, Simulation
from integration.endpoint import ROOT, SERVICES
from multigpu_inference.config import Settings
from multigpu_inference.planner.deployment import Candidate, Deployment, deploy
from multigpu_inference.planner.engine_run import started_engine
from multigpu_inference.planner.load import ClosedLoop
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.sample import Sample
from support import wait_until

STAGES = 2
CLOSE = 0.95  # of the best: what a recommendation must reach
CONTENDERS, ROUNDS = 2, 3


def run_plan(model: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "multigpu_inference", "plan", str(model), *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def make_model(folder: Path, source: str) -> Path:
    (folder / "model" / "code").mkdir(parents=True)
    (folder / "model" / "code" / "inference.py").write_text(source)
    return folder / "model"


@dataclass(frozen=True)
class Simulated:
    """Simulated devices, and the engine on them."""

    folder: Path
    simulation: Simulation
    devices: int

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def prepare(self) -> None:
        (self.model / "code").mkdir(parents=True)
        shutil.copy(ROOT / "bench" / "workloads" / "sim.py", self.model / "code" / "inference.py")
        (self.folder / "devices").mkdir()

    def environment(self) -> dict[str, str]:
        return {
            "MULTIGPU_DEVICES": "cpu",
            "MULTIGPU_PREPROCESS": "pool",
            "MULTIGPU_STAGE_THREADS": "1",
            "MULTIGPU_MAX_QUEUE_SIZE": "1000",
            **self.simulation.environment(self.devices, str(self.folder / "devices")),
        }

    def plan(self) -> dict[str, Any]:
        done = run_plan(self.model, "--devices", str(self.devices), "--json", **self.environment())
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def deployment(self, candidate: Candidate) -> Deployment:
        machine = Machine(0, self.devices, 2, 1 << 40, self.devices, 2)
        return deploy(candidate, Settings.from_env(self.environment()), machine, STAGES)

    def serve(self, candidate: Candidate, seconds: float) -> float:
        """Requests per second that the engine itself serves with these settings."""
        return asyncio.run(self._serve(self.deployment(candidate), seconds))

    async def _serve(self, deployment: Deployment, seconds: float) -> float:
        environ = {
            **self.environment(),
            **deployment.candidate.environment(),
            "SAGEMAKER_BASE_DIR": str(self.folder),
        }
        async with started_engine(environ, Settings.from_env(environ)) as (_, path):
            sample = Sample((self.folder / "sample.jpg").read_bytes(), "image/jpeg", "image/png", "a file")
            loop = await ClosedLoop.connect(str(path), sample, 30.0)
            try:
                result = await loop.run(deployment.in_flight, 1.0, seconds)
            finally:
                await loop.close()
        assert not result.errors
        return result.requests_per_second


@pytest.fixture
def simulated(tmp_path: Path, request: pytest.FixtureRequest) -> Simulated:
    simulation, devices = request.param
    simulated = Simulated(tmp_path, simulation, devices)
    simulated.prepare()
    shutil.copy(min((ROOT / "demo" / "photos").glob("*.jpg")), tmp_path / "sample.jpg")
    make_small(tmp_path / "sample.jpg")
    return simulated


def make_small(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.resize((64, 48))
    small.save(path, "JPEG")


def recommended(plan: dict[str, Any]) -> Candidate:
    """The settings that were printed, as a person would paste them."""
    settings = plan["settings"]

    def number(name: str) -> int | None:
        return int(settings[name]) if name in settings else None

    return Candidate(
        settings.get("MULTIGPU_PLACEMENT", "ring"),
        number("MULTIGPU_NUM_REPLICAS"),
        number("MULTIGPU_MAX_BATCH_SIZE"),
        number("MULTIGPU_PREPROCESS_WORKERS"),
    )


def share_of_best(
    simulated: Simulated, chosen: Candidate, others: list[Candidate], seconds: float, *, quick: bool
) -> tuple[float, str]:
    """What the chosen settings serve as a share of the best of all, and a line of figures.

    The first pass only says who may be the best: the highest of many noisy figures is too high. So the best few of it are
    measured anew, in turns with the chosen ones, and medians are compared. A quick look is content with a close first pass.
    """
    first = {candidate: simulated.serve(candidate, seconds) for candidate in dict.fromkeys([chosen, *others])}
    best_first = sorted((each for each in first if each != chosen), key=lambda each: -first[each])
    if quick and first[chosen] >= CLOSE * first[best_first[0]]:
        return first[chosen] / first[best_first[0]], f"at first: {first}"
    again = {candidate: list[float]() for candidate in [chosen, *best_first[:CONTENDERS]]}
    for _ in range(ROUNDS):
        for candidate, rates in again.items():
            rates.append(simulated.serve(candidate, seconds))
    medians = {candidate: statistics.median(rates) for candidate, rates in again.items()}
    best = max(medians, key=lambda candidate: medians[candidate])
    share = medians[chosen] / medians[best]
    return share, f"share {share:.3f} of the best of {len(first)}, {best}; measured anew: {again}; at first: {first}"


def grid(simulation: Simulation, devices: int) -> list[Candidate]:
    """An honest grid: placements, numbers of replicas, batch sizes, pool workers; what may win, and some that cannot."""
    placements: list[tuple[str, int | None]] = [("ring", devices), ("ring", 2 * devices)]
    if devices > 1:
        placements += [("same", devices), ("same", 2 * devices)]
        half = devices // 2
        placements.append((";".join(f"cpu:{i},cpu:{half + i}" for i in range(half)), None))
    enough = simulation.pool_workers(devices)
    batches = (None,) if simulation.max_batch_size == 1 else (4, 8)
    return [
        Candidate(placement, replicas, batch, workers)
        for placement, replicas in placements
        for batch in batches
        for workers in (enough, 2 * enough)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("simulated", [(UNBATCHED, 2)], indirect=True)
def test_two_devices_are_planned_within_5_percent_of_the_best(simulated: Simulated) -> None:
    plan = simulated.plan()
    others = [Candidate("same", 2, None, 4), Candidate("ring", 4, None, 4)]
    share, figures = share_of_best(simulated, recommended(plan), others, 1.0, quick=True)
    assert share >= CLOSE, figures
    assert plan["recommended"]["requests_per_second"] == pytest.approx(100, rel=0.05)  # 20 ms of a device for each request


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "simulated",
    [(simulation, devices) for devices in (1, 2, 4, 8) for simulation in (UNBATCHED, BATCHED)],
    indirect=True,
    ids=lambda value: f"{value[1]} devices, batches of {value[0].max_batch_size}",
)
def test_a_recommendation_is_within_5_percent_of_the_best_of_an_exhaustive_run(
    simulated: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = simulated.plan()
    share, figures = share_of_best(
        simulated, recommended(plan), grid(simulated.simulation, simulated.devices), 3.0, quick=False
    )
    with capsys.disabled():
        predicted = plan["recommended"]["requests_per_second"]
        sys.stdout.write(f"\n{simulated.devices} devices: {recommended(plan)}: predicted {predicted:.1f}/s, {figures}\n")
    assert share >= CLOSE, figures


@pytest.mark.slow
def test_prediction_and_measurement_stand_side_by_side(tmp_path: Path) -> None:
    done = run_plan(make_model(tmp_path, (SERVICES / "reverses.py").read_text()), "--verify", "--cores", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("measured with sample_input() (application/octet-stream, 256 bytes) on the CPU, ")
    assert "planned for the CPU, 4 cores: taken to be like those that were measured" in done.stdout
    assert "settings to paste:" in done.stdout
    measured = done.stdout[done.stdout.index("measured with the engine itself") :].splitlines()
    assert measured[1].split()[:4] == ["requests/s", "predicted", "off", "by"]
    assert measured[2].startswith("recommended")


# What cannot be planned


def test_a_script_without_a_sample_needs_a_body(tmp_path: Path) -> None:
    source = (SERVICES / "reverses.py").read_text().replace("def sample_input", "def no_sample_input")
    model = make_model(tmp_path, source)
    done = run_plan(model)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("plan: the script has no sample_input(): say --body FILE")
    assert done.stdout == ""


@pytest.mark.slow
def test_a_body_from_a_file_takes_the_samples_place(tmp_path: Path) -> None:
    source = (SERVICES / "reverses.py").read_text().replace("def sample_input", "def no_sample_input")
    model = make_model(tmp_path, source)
    (tmp_path / "body").write_bytes(bytes(5000))
    done = run_plan(model, "--body", str(tmp_path / "body"), "--content-type", "application/octet-stream", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["sample"] == {"source": str(tmp_path / "body"), "content_type": "application/octet-stream", "bytes": 5000}
    assert plan["measured"]["output_fn"]["bytes_out"] in (0, 5000)


def test_a_model_that_does_not_load_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    source = (SERVICES / "reverses.py").read_text().replace("    return None", "    raise FileNotFoundError('no weights')")
    done = run_plan(make_model(tmp_path, source))
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == "plan: model_fn failed on replica 0: FileNotFoundError: no weights"


def test_user_code_that_hangs_ends_at_a_deadline_and_nothing_is_left(tmp_path: Path) -> None:
    model = make_model(tmp_path, HANGS.format(pids=tmp_path / "pids"))
    done = run_plan(model, MULTIGPU_REQUEST_TIMEOUT_S="0.5")
    assert done.returncode == 3
    assert "the first request did not end within" in done.stderr.splitlines()[-1]
    assert not [pid for pid in map(int, (tmp_path / "pids").read_text().split()) if psutil.pid_exists(pid)]


def test_nothing_is_left_after_an_interrupt(tmp_path: Path) -> None:
    model = make_model(tmp_path, HANGS.format(pids=tmp_path / "pids"))
    planner = subprocess.Popen(
        [sys.executable, "-m", "multigpu_inference", "plan", str(model)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: (tmp_path / "pids").exists() and len((tmp_path / "pids").read_text().split()) == 2, 30)
        planner.send_signal(signal.SIGINT)
        assert planner.wait(20) == 130
    finally:
        planner.kill()
        planner.wait()
    assert not [pid for pid in map(int, (tmp_path / "pids").read_text().split()) if psutil.pid_exists(pid)]


# Notes its own process and one that it starts in a session of its own, then sleeps.
HANGS = """
import os, subprocess, time

def model_fn(model_dir): return None
def input_fn(body, content_type): return body
def output_fn(prediction, accept): return bytes(prediction)
def sample_input(): return b"abc", "application/octet-stream"

def predict_fn(data, model):
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open("{pids}.new", "w") as file:
        file.write(f"{{os.getpid()}} {{child.pid}}")
    os.rename("{pids}.new", "{pids}")
    time.sleep(1000)
"""
