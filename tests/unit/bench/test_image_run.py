"""Real processes: the command, the container, and what happens to both meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from bench.image_source import SeededPictures
from bench.workload import ROOT
from s3_site import CREDENTIALS, running_s3
from support import wait_until

ODD = ["sub/ä €.jpg", "sub/a\nb.jpg", "same.jpg", "same.jpeg", os.fsdecode(b"\xff.jpg")]

# Answers with a picture's size, and holds a device of its own for a while.
SCRIPT = """
import io, time
from PIL import Image
def model_fn(model_dir): return "the model"
def input_fn(body, content_type): return Image.open(io.BytesIO(body)).size
def predict_fn(size, model): time.sleep(0.01); return size
def output_fn(size, accept): return '{"width": %d}' % size[0], "application/json"
"""


class Command:
    """`python -m bench images` on simulated devices, with a state of its own."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, workers: int = 2, environ: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "bench", "images", "--model", "study", "--workers", str(workers), *arguments]
        started = subprocess.Popen(
            [*words, "--state", str(self.state)],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(started)
        return started

    def run(self, *arguments: str, workers: int = 2, environ: Mapping[str, str] = os.environ) -> tuple[int, str]:
        started = self.start(*arguments, workers=workers, environ=environ)
        text, _ = started.communicate(timeout=240)
        return started.returncode, text

    def lines(self, workers: int = 2) -> list[dict[str, Any]]:
        path = self.state / f"workers-{workers}.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def pictures(self, workers: int = 2) -> list[dict[str, Any]]:
        return [line for line in self.lines(workers) if "picture" in line]

    def end(self) -> None:
        for started in self._running:
            started.kill()
            started.communicate()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path / "state")
    yield made
    made.end()


def fill(folder: Path, count: int) -> list[str]:
    """Pictures with ordinary and odd names, one that is none, one that is too large, and a text; the names of the good ones."""
    seeded = SeededPictures(count, (160, 120))
    names = [*seeded.names, *ODD]
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seeded.read(seeded.names[0]))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "large.png").write_bytes(bytes((1 << 20) + 1))
    (folder / "notes.txt").write_text("no picture by its name")
    return names


def descendants(started: subprocess.Popen[str], mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(started.pid).children(recursive=True):
        with suppress(psutil.Error):
            if mark in " ".join(process.cmdline()):
                found.append(process)
    return found


def gone(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def test_a_run_that_is_killed_goes_on_with_nothing_twice_and_nothing_missing(command: Command, tmp_path: Path) -> None:
    names = fill(tmp_path / "photos", 60)
    results = tmp_path / "photos" / "results"
    arguments = ("--source", str(tmp_path / "photos"), "--output", str(results), "--set", "SAGEMAKER_MAX_PAYLOAD_IN_MB=1")

    first = command.start(*arguments)
    wait_until(lambda: len(command.pictures()) >= 20, 40)
    (container,) = descendants(first, "entrypoint.py")
    first.kill()
    first.wait()
    before = {line["picture"]: (results / line["result"]).stat().st_mtime_ns for line in command.pictures() if "result" in line}
    assert 0 < len(before) < len(names)
    wait_until(lambda: gone(container), 30)  # nobody is left that holds a device

    code, text = command.run(*arguments, "--ordered")
    assert code == 1, text
    assert "1 files of" in text
    assert "'broken.jpg': 500: " in text
    assert "'large.png': 413: " in text
    done = [line for line in command.pictures() if "error" not in line]
    assert Counter(line["picture"] for line in done) == Counter(names)
    assert {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()} == {
        f"{name}.png" for name in names
    }
    for name, written in before.items():
        assert (results / f"{name}.png").stat().st_mtime_ns == written
    session = max(number for number, line in enumerate(command.lines()) if "began" in line)
    ordered = [line["picture"] for line in command.lines()[session:] if "picture" in line]
    assert ordered == sorted(ordered)
    assert (command.state / "images.html").stat().st_size > 1000


@pytest.mark.slow
def test_an_interrupted_run_keeps_its_journal_and_leaves_nothing_running(command: Command) -> None:
    first = command.start("--count", "200")
    wait_until(lambda: len(command.pictures()) >= 20, 40)
    (container,) = descendants(first, "entrypoint.py")
    first.send_signal(signal.SIGINT)
    text, _ = first.communicate(timeout=40)
    assert first.returncode == 130
    assert "the same command goes on where this one was" in text
    assert "Traceback" not in text
    assert gone(container)
    done = len(command.pictures())
    code, text = command.run("--count", "200")
    assert code == 0, text
    assert f"{done} pictures were done before, {200 - done} are left" in text
    assert Counter(line["picture"] for line in command.pictures()) == Counter(SeededPictures(200, (8, 8)).names)
    code, text = command.run("--count", "200")
    assert code == 0, text
    assert "all 200 pictures were done before" in text


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["replica_worker", "pool_worker"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_killed_costs_time_and_no_picture(command: Command, mark: str, workers: int) -> None:
    started = command.start("--count", "150", "--no-output", workers=workers)
    wait_until(lambda: len(command.pictures(workers)) >= 20, 40)
    descendants(started, mark)[0].kill()
    text, _ = started.communicate(timeout=60)
    assert started.returncode == 0, text
    assert Counter(line["picture"] for line in command.pictures(workers)) == Counter(SeededPictures(150, (8, 8)).names)


@pytest.mark.slow
def test_a_container_that_is_killed_ends_the_run_and_the_next_one_goes_on(command: Command) -> None:
    first = command.start("--count", "150")
    wait_until(lambda: len(command.pictures()) >= 20, 40)
    descendants(first, "entrypoint.py")[0].kill()
    text, _ = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "bench: the container ended with exit code -9" in text
    assert "Traceback" not in text
    code, text = command.run("--count", "150")
    assert code == 0, text
    assert Counter(line["picture"] for line in command.pictures()) == Counter(SeededPictures(150, (8, 8)).names)


@pytest.mark.slow
def test_a_script_of_one_s_own_from_s3_to_s3(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT)
    seeded = SeededPictures(40, (32, 24))
    with running_s3() as url:
        environ = {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": url}
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="own")
        for name in seeded.names:
            s3.put_object(Bucket="own", Key=f"in/{name}", Body=seeded.read(name))
        arguments = ("--source", "s3://own/in", "--output", "s3://own/in/out", "--model", str(script))
        code, text = command.run(*arguments, "--ordered", environ=environ)
        assert code == 0, text
        assert [line["picture"] for line in command.pictures()] == seeded.names
        written = s3.list_objects_v2(Bucket="own", Prefix="in/out/")["Contents"]
        assert [found["Key"] for found in written] == [f"in/out/{name}.json" for name in seeded.names]
        body = s3.get_object(Bucket="own", Key=written[7]["Key"])["Body"].read()
        assert json.loads(body) == {"width": 32}
    told = [line["inference_ms"] for line in command.pictures() if "inference_ms" in line]
    assert len(told) >= 39  # not of the first picture, which found out where each function runs
    assert min(told) >= 10


def test_what_cannot_be_is_one_line_before_anything_starts(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, text = command.run("--count", "10", "--output", str(tmp_path / "file"))
    assert code == 1
    assert text.startswith(f"bench: --output {tmp_path / 'file'} cannot be written: ")
    assert len(text.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_four_workers_are_nearly_four_times_as_fast_and_eight_nearly_eight(command: Command) -> None:
    words = ("--count", "1500", "--no-output", "--workers", "1,4,8")
    code, text = command.run(*words)
    assert code == 0, text
    one, four, eight = json.loads((command.state / "images.json").read_text())["runs"]
    assert one["seconds"] / four["seconds"] >= 3.9, text
    assert one["seconds"] / eight["seconds"] >= 7.6, text
    for run in (one, four, eight):
        assert run["pictures"] == 1500
        assert run["transformation_p50_ms"] >= 5
        assert run["inference_p50_ms"] >= 45
        assert 0.5 < run["devices"] <= 1
