"""`python -m multigpu_inference check`, as a person runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from integration.endpoint import SERVICES


def run_check(model: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "multigpu_inference", "check", str(model), *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def model_of(folder: Path, source: str) -> Path:
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text(source)
    return folder


def test_a_script_that_shares_globals(tmp_path: Path) -> None:
    model = model_of(tmp_path / "model", (SERVICES / "needs_globals.py").read_text())
    (tmp_path / "body").write_text('{"value": 20}')
    done = run_check(model, "--body", str(tmp_path / "body"), "--content-type", "application/json", MULTIGPU_NUM_REPLICAS="2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "on the CPU: 2 replicas, on cpu:0; cpu:1\n" in done.stdout
    assert "2 requests at a time in predict_fn, one on each replica\n" in done.stdout
    assert "input_fn stays on the replica's thread" in done.stdout
    assert "it reads the global SCALE, which model_fn sets" in done.stdout
    assert "free output_fn from globals" in done.stdout


def test_a_request_that_fails_is_shown_with_its_trace(tmp_path: Path) -> None:
    source = "def model_fn(model_dir): pass\ndef input_fn(body, content_type): return body['x']\n"
    sample = "def sample_input(): return '{}', 'application/json'\n"
    done = run_check(model_of(tmp_path / "model", source + sample), MULTIGPU_NUM_REPLICAS="1")
    assert done.returncode == 3  # as the container itself, which answers the sample before it starts
    assert done.stderr.startswith("check: sample_input() cannot be answered by replica-0: input_fn: TypeError: string indices")
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "body").write_text("{}")
    options = ("--body", str(tmp_path / "body"), "--content-type", "application/json")
    done = run_check(model_of(tmp_path / "other", source), *options, MULTIGPU_NUM_REPLICAS="1")
    assert done.returncode == 1
    assert "is NOT answered: status 500, input_fn failed" in done.stdout
    assert "TypeError: string indices must be integers" in done.stdout


def test_what_cannot_be_checked_is_one_line(tmp_path: Path) -> None:
    for folder, text in ((tmp_path, "has no code/inference.py; without a model_fn"), (tmp_path / "no", "no such folder")):
        done = run_check(folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
