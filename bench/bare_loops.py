"""The limit: as many bare loops as there are cores, and what they reach together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from bench.bench_error import BenchError
from bench.workload import ROOT, Workload
from multigpu_inference.child_process import KEEP_MEMORY
from multigpu_inference.engine.process_pool import threads

_LOAD_LIMIT_S = 120.0


class BareLoops:
    """Processes that hold the script's model and wait to be told to run; they use nothing meanwhile."""

    def __init__(self, workload: Workload, base_dir: Path, count: int, settings: Mapping[str, str]) -> None:
        """Nothing is started yet.

        Args:
            workload: Whose script; its bodies are written below `base_dir`.
            base_dir: Stands for /opt/ml.
            count: Processes. Each computes with its share of the cores.
            settings: Environment variables of the container that they are compared with.
        """
        self.folder = base_dir / "requests"
        self._workload = workload
        self._base_dir = base_dir
        self._count = count
        self._settings = settings
        self._loops: list[tuple[subprocess.Popen[bytes], TextIO]] = []

    def __enter__(self) -> BareLoops:
        """Start them and have the right answers written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, body in enumerate(self._workload.inputs()):
            (self.folder / f"{number:03}.input").write_bytes(body)
        request = {"content_type": self._workload.content_type, "accept": self._workload.accept}
        (self.folder / "request.json").write_text(json.dumps(request))
        try:
            for number in range(self._count):
                self._loops.append(self._start(number))
            for _, lines in self._loops:
                _hear(lines)
            _say(self._loops[0][1], "expected")
            _hear(self._loops[0][1])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End them."""
        self._end()

    def run(self, seconds: float) -> float:
        """Let all of them run at the same time; requests per second in all."""
        for _, lines in self._loops:
            _say(lines, f"run {seconds}")
        outcomes = [_hear(lines) for _, lines in self._loops]
        return float(sum(outcome["requests"] / outcome["seconds"] for outcome in outcomes))

    def _start(self, number: int) -> tuple[subprocess.Popen[bytes], TextIO]:
        ours, theirs = socket.socketpair()
        ours.settimeout(_LOAD_LIMIT_S)
        share = max(1, len(os.sched_getaffinity(0)) // self._count)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.bare_loop", str(theirs.fileno()), str(os.getpid()), f"bare-{number}",
                 str(self.folder)],
                cwd=ROOT,
                env={
                    **os.environ,
                    # As the engine's workers have it: the limit is not to be a slower process than they are.
                    **threads(share),
                    **KEEP_MEMORY,
                    **self._settings,
                    "SAGEMAKER_BASE_DIR": str(self._base_dir),
                },
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip
        with ours:
            return process, ours.makefile("rw")

    def _end(self) -> None:
        for process, lines in self._loops:
            lines.close()
            process.kill()
            process.wait()
        self._loops.clear()


def _say(lines: TextIO, command: str) -> None:
    print(command, file=lines, flush=True)


def _hear(lines: TextIO) -> dict[str, Any]:
    try:
        line = lines.readline()
    except TimeoutError:
        line = ""
    if not line:
        raise BenchError("a bare loop ended or hung; what it printed stands above")
    said: dict[str, Any] = json.loads(line)
    return said
