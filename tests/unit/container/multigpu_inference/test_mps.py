"""The daemon of the Multi-Process Service, played by a shell script."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multigpu_inference.mps import Mps

LISTENS = 'mkfifo "$CUDA_MPS_PIPE_DIRECTORY/control"'


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a daemon of a line of shell until it has ended, or is stopped; what is logged of it."""

    def run(line: str, *, stop: bool) -> list[dict[str, Any]]:
        program = tmp_path / "nvidia-cuda-mps-control"
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

        async def main() -> None:
            async with asyncio.timeout(10):
                mps = await Mps.start(tmp_path)
                if not stop:
                    assert mps._watching is not None
                    await mps._watching
                await mps.stop()

        asyncio.run(main())
        return [json.loads(line) for line in capfd.readouterr().out.splitlines()]

    return run


def test_what_it_says_and_its_end_are_logged(events: Callable[..., Any]) -> None:
    said, ended = events(f"{LISTENS}; echo out of clients >&2; sleep 0.2; exit 9", stop=False)
    assert (said["event"], said["message"]) == ("mps_said", "out of clients")
    assert (ended["event"], ended["process"], ended["exit_code"]) == ("process_ended", "mps", 9)


def test_its_end_with_the_container_is_none_to_speak_of(events: Callable[..., Any]) -> None:
    assert events(f"{LISTENS}; exec sleep 1000", stop=True) == []
