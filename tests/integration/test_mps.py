"""NVIDIA's Multi-Process Service on request, its daemon played by a shell script: what it is told, and that it ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.endpoint import Endpoint
from integration.kinds import once_is_enough
from support import wait_until

WORKS = 'mkdir -p "$CUDA_MPS_PIPE_DIRECTORY"; mkfifo "$CUDA_MPS_PIPE_DIRECTORY/control"; echo "$*" > {told}; exec sleep 1000'


@pytest.fixture
def daemon(tmp_path: Path) -> Callable[[str], str]:
    """Makes a daemon of a line of shell; the PATH with it in front."""

    def make(line: str) -> str:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "nvidia-cuda-mps-control"
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return make


@once_is_enough
def test_workers_are_told_where_the_daemon_is_and_it_ends_with_the_container(
    new_endpoint: Callable[..., Endpoint], daemon: Callable[[str], str], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    endpoint = new_endpoint(MULTIGPU_MPS="1", PATH=daemon(WORKS.format(told=told))).with_script("commands").start().ready()
    assert told.read_text() == "-f\n"
    (running,) = endpoint.processes("sleep 1000")
    replica = Path(f"/proc/{endpoint.worker_pids('replica-')['replica-0']}/environ").read_bytes().split(b"\0")
    pipes = next(entry for entry in replica if entry.startswith(b"CUDA_MPS_PIPE_DIRECTORY="))
    assert pipes.split(b"=")[1].startswith(os.fsencode(endpoint.temporary))
    endpoint.terminate()
    assert endpoint.wait_exit(10) == 0
    assert not running.is_running()
    wait_until(lambda: not list(endpoint.temporary.iterdir()), 5)


@once_is_enough
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("echo no GPU >&2; exit 3", "ended with code 3: no GPU"),
        pytest.param("exit 1", "ended with code 1: no word", marks=pytest.mark.slow),
        pytest.param(None, "there is no", marks=pytest.mark.slow),
    ],
)
def test_where_it_cannot_be_the_start_says_so(
    new_endpoint: Callable[..., Endpoint], daemon: Callable[[str], str], line: str | None, reason: str
) -> None:
    path = os.environ["PATH"] if line is None else daemon(line)
    endpoint = new_endpoint(MULTIGPU_MPS="1", PATH=path).with_script("commands").start()
    assert endpoint.wait_exit(20) == 3
    (event,) = endpoint.events("start_failed")
    assert event["message"].startswith("MULTIGPU_MPS=1: ")
    assert reason in event["message"]
