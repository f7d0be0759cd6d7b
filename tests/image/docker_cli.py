"""The docker command and containers of the image under test."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import requests

START_LIMIT_S = 120.0


@dataclass(frozen=True)
class Docker:
    """The docker command and the image under test."""

    command: tuple[str, ...]
    image: str

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, timeout=120)
        if check and done.returncode != 0:
            pytest.fail(f"docker {arguments[0]} failed with {done.returncode}: {done.stderr.strip()}")
        return done

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in a fresh container of the image."""
        return self.run("run", "--rm", "--entrypoint", "sh", self.image, "-c", script, check=False)


@dataclass(frozen=True)
class Container:
    """A container that was started in the background."""

    docker: Docker
    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def output(self) -> str:
        logs = self.docker.run("logs", self.name)
        return logs.stdout + logs.stderr

    def ping(self) -> int | None:
        """The status of `/ping`; None where nobody answers."""
        try:
            return requests.get(f"{self.url}/ping", timeout=2).status_code
        except requests.RequestException:
            return None

    def running(self) -> bool:
        return self._state("Running") == "true"

    def exit_code(self) -> int:
        return int(self._state("ExitCode"))

    def stop(self, grace_s: int = 30) -> None:
        """SIGTERM, then SIGKILL: as SageMaker does it."""
        self.docker.run("stop", "-t", str(grace_s), self.name)

    def wait_until(self, condition: Callable[[], bool], limit_s: float, what: str) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {limit_s:.0f} s; its output ends with\n{self.output()[-3000:]}")
            time.sleep(0.2)

    def wait_until_ready(self) -> None:
        self.wait_until(lambda: self.ping() == 200 or not self.running(), START_LIMIT_S, "ready")
        if self.ping() != 200:
            pytest.fail(f"ended with {self.exit_code()} before it was ready:\n{self.output()[-3000:]}")

    def _state(self, field: str) -> str:
        return self.docker.run("inspect", "--format", f"{{{{.State.{field}}}}}", self.name).stdout.strip()
