"""The HTTP front end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from integration.frontend.front_end import CONTAINER, FrontEnd
from multigpu_inference.ipc import FrameSocket, socket_pair
from multigpu_inference.messages import Message

_TESTS = Path(__file__).resolve().parents[2]


class HttpFrontEnd(FrontEnd):
    """Its one process, and the supervisor's end of the socket between them.

    Args:
        limits: Constants of the front end's modules that are to have another value, such as `connection.HEAD_LIMIT_S`.
        user: Whose process it is to be.
        environment: Settings.
    """

    def __init__(self, limits: dict[str, float] | None = None, user: int | None = None, **environment: str) -> None:
        super().__init__(user, **environment)
        self.limits = limits
        self._supervisor: FrameSocket | None = None
        if limits is not None:
            self.environment["PYTHONPATH"] = os.pathsep.join([str(CONTAINER), str(_TESTS)])

    def launch(self, **options: Any) -> subprocess.Popen[bytes]:
        self.close_supervisor()
        ours, theirs = socket_pair()
        self._supervisor = FrameSocket(ours)
        module, limits = "multigpu_inference.frontend.http.server", []
        if self.limits is not None:
            module, limits = "integration.frontend.http.with_limits", [json.dumps(self.limits)]
        arguments = [str(theirs.fileno()), str(os.getpid()), "front-end", str(self.run_dir), *limits]
        with theirs:
            return subprocess.Popen([sys.executable, "-P", "-m", module, *arguments], pass_fds=(theirs.fileno(),), **options)

    def serving(self) -> set[int]:
        assert self.process is not None
        return {self.process.pid}

    def is_complete(self) -> bool:
        return True

    def said(self) -> list[Message]:
        """What it has told the supervisor since it was last asked."""
        assert self._supervisor is not None
        self._supervisor.settimeout(0.01)
        messages: list[Message] = []
        with contextlib.suppress(OSError, EOFError):
            while True:
                messages.append(self._supervisor.receive()[0])
        return messages

    def close_supervisor(self) -> None:
        """Close the supervisor's end, as the kernel does when the supervisor ends."""
        if self._supervisor is not None:
            self._supervisor.close()

    def clean_up(self) -> None:
        super().clean_up()
        self.close_supervisor()
