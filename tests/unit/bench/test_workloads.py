from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.model_folder import make_model_folder
from bench.simulation import BATCHED
from bench.workload import ROOT, WORKLOADS
from bench.workloads import echo, hold, noop, sim
from support import wait_until


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in BATCHED.environment(2, str(tmp_path)).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def held_by_another_process(folder: Path, number: int) -> subprocess.Popen[str]:
    code = (
        "import sys; from bench.workloads.sim import Device\n"
        f"with Device({number}, {str(folder)!r}):\n print('held', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def taking(device: Any) -> tuple[threading.Thread, threading.Event]:
    """A thread that takes a device and gives it back; the event says that it had it."""
    had = threading.Event()

    def take() -> None:
        with device:
            had.set()

    thread = threading.Thread(target=take)
    thread.start()
    return thread, had


def test_a_device_is_held_by_one_process_at_a_time_and_free_when_its_holder_dies(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path, 0) as holder:
        thread, had = taking(sim.Device(0, str(tmp_path)))
        _, other_had = taking(sim.Device(1, str(tmp_path)))
        wait_until(other_had.is_set, 5)  # another device is free
        wait_until(waits_for_a_lock, 5)
        assert not had.is_set()
        holder.kill()
        wait_until(had.is_set, 5)
        thread.join()


def waits_for_a_lock() -> bool:
    """Whether the kernel has put a thread of this process to sleep behind somebody's lock."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and str(os.getpid()) in line.split() for line in lines)


def test_two_stages_of_one_process_exclude_each_other(devices: Path) -> None:
    first, second = sim.load_stages(("cpu:0", "cpu:2"))  # of two devices: both are device 0
    with first._held:
        thread, had = taking(second._held)
        wait_until(waits_for_a_lock, 5)
        assert not had.is_set()
    wait_until(had.is_set, 5)
    thread.join()


def test_a_holder_that_wants_its_device_again_comes_second(tmp_path: Path) -> None:
    mine, other, order = sim.Device(0, str(tmp_path)), sim.Device(0, str(tmp_path)), []

    def take() -> None:
        with other:
            order.append("other")

    waiting = threading.Thread(target=take)
    with mine:
        waiting.start()
        wait_until(waits_for_a_lock, 5)
        # Who comes first at a free lock is a race; behind a door that is taken it is none.
        with pytest.raises(BlockingIOError):
            fcntl.flock(mine._door, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with mine:
        order.append("holder")
    waiting.join()
    assert order == ["other", "holder"]


@pytest.mark.parametrize(("stage", "batch", "milliseconds"), [(0, 1, 8), (0, 8, 22), (1, 1, 12), (1, 8, 33)])
def test_a_stage_lasts_as_long_as_its_batch_says(devices: Path, stage: int, batch: int, milliseconds: float) -> None:
    run = sim.load_stages(("cpu:0", "cpu:1"))[stage]
    pictures = [Image.new("L", sim.SIZE, number) for number in range(batch)]
    began = time.monotonic()
    answers = run(pictures)
    took_ms = (time.monotonic() - began) * 1e3
    assert len(answers) == batch
    assert run.max_batch_size == 8
    assert milliseconds <= took_ms < milliseconds + 20  # a busy machine wakes late, never early


def test_the_simulation_answers_what_both_stages_made(devices: Path) -> None:
    picture = Image.linear_gradient("L").rotate(90).resize(sim.SIZE)
    model = sim.load_stages(("cpu:0", "cpu:1"))
    inverted = model[0]([picture])
    body, content_type = sim.output_fn(model[1](inverted)[0], "image/png")
    answer = Image.open(io.BytesIO(body))
    assert content_type == "image/png"
    assert answer.getpixel((0, 0)) == 255 - int(picture.getpixel((sim.SIZE[0] - 1, 0)))  # type: ignore[arg-type]


def test_the_simulation_needs_no_torch() -> None:
    code = (
        "import sys; from bench.workloads import sim\n"
        "body, kind = sim.sample_input()\n"
        "class context: devices = ('cpu:0', 'cpu:0')\n"
        "sim.output_fn(sim.predict_fn(sim.input_fn(body, kind), sim.model_fn('', context)), 'image/png')\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_noop_takes_the_usual_size_and_answers_ten_bytes() -> None:
    body = WORKLOADS["noop"].inputs()[0]
    answer, _ = noop.output_fn(noop.predict_fn(noop.input_fn(body, ""), None), "")
    assert len(body) == 200_000
    assert len(answer) == 10


def test_echo_answers_what_it_was_sent() -> None:
    body = WORKLOADS["echo"].inputs()[0]
    answer, _ = echo.output_fn(echo.predict_fn(echo.input_fn(bytearray(body), ""), None), "")
    assert answer == body


def test_hold_answers_when_its_file_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hold"
    monkeypatch.setenv("HOLD_WHILE", str(file))
    model, answers = hold.model_fn(""), list[int]()
    file.touch()
    thread = threading.Thread(target=lambda: answers.append(hold.predict_fn(5, model)))
    thread.start()
    thread.join(5 * hold.LOOK_AGAIN_S)
    assert answers == []
    file.unlink()
    thread.join(5)
    assert answers == [5]
    assert hold.output_fn(5, "")[0] == b"0000000005"


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_sends_the_same_each_time_and_different_bodies_in_turn(name: str) -> None:
    bodies = WORKLOADS[name].inputs()
    assert bodies == WORKLOADS[name].inputs()
    assert len(set(bodies)) == len(bodies) > 1


def test_the_simulated_bodies_are_light() -> None:
    assert all(3_000 < len(body) < 5_000 for body in WORKLOADS["sim"].inputs())


def test_a_script_becomes_a_model_folder(tmp_path: Path) -> None:
    make_model_folder(WORKLOADS["sim"], tmp_path / "ml")
    packed = tmp_path / "ml" / "model" / "code" / "inference.py"
    assert packed.read_text() == Path(sim.__file__).read_text()
