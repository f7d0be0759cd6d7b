"""The whole container on this machine: its real entry point, the real front end, real processes and sockets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import requests

from multigpu_inference.credentials import withheld
from support import free_port, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = ROOT / "tests" / "services"
START_LIMIT_S = 60.0


class Endpoint:
    """A container serving one script."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.model_dir = folder / "ml" / "model"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.temporary = Path(tempfile.mkdtemp(prefix="ep-"))  # short: socket paths have 108 bytes at most
        self.environment = {
            "SAGEMAKER_BASE_DIR": str(folder / "ml"),
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "MULTIGPU_NUM_REPLICAS": "2",
            "MULTIGPU_PREPROCESS_WORKERS": "2",
            "TMPDIR": str(self.temporary),
            **environment,
        }
        self.command = [sys.executable, str(ROOT / "container" / "entrypoint.py"), "serve"]
        self.process: subprocess.Popen[bytes] | None = None
        self.session = requests.Session()
        self.session.trust_env = False

    def with_script(self, service: str) -> Endpoint:
        """Serve `tests/services/NAME.py`."""
        if service == "commands":  # its answers say which process made them, which `auto` would take for a dependence on it
            self.environment.setdefault("MULTIGPU_PREPROCESS", "pool")
        return self.with_source((SERVICES / f"{service}.py").read_text())

    def with_source(self, source: str) -> Endpoint:
        """Serve a script given as text."""
        (self.model_dir / "code").mkdir(parents=True, exist_ok=True)
        (self.model_dir / "code" / "inference.py").write_text(source)
        return self

    def start(self) -> Endpoint:
        """Start the container; it need not become ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**withheld(os.environ), **self.environment},  # else the engine could not be looked into
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self

    def ready(self) -> Endpoint:
        """Wait until it says that it is ready."""

        def is_ready() -> bool:
            assert self.exit_code() is None, self.log.read_text()
            return bool(self.events("ready"))

        wait_until(is_ready, START_LIMIT_S)
        return self

    def exit_code(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def wait_exit(self, limit_s: float) -> int:
        assert self.process is not None
        return self.process.wait(limit_s)

    def terminate(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def invoke(
        self, body: bytes | str | dict[str, Any], content_type: str = "application/json", **headers: str
    ) -> requests.Response:
        """One request; a dict goes as JSON. Header names are given with underscores."""
        data = json.dumps(body) if isinstance(body, dict) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        # A connection for each request: a shared session is no place for several threads.
        return requests.post(
            f"{self.url}/invocations", data=data, headers={"Content-Type": content_type, **named}, timeout=60,
            proxies={"http": ""},
        )  # fmt: skip

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log about one kind of event."""
        return [event for event in self.all_events() if event["event"] == name]

    def all_events(self) -> list[dict[str, Any]]:
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"time"') and line.endswith("}")]

    def descendants(self) -> list[psutil.Process]:
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def processes(self, text: str) -> list[psutil.Process]:
        """Living processes of the container with a word in their command line."""
        found = []
        for process in self.descendants():
            try:
                if process.status() != psutil.STATUS_ZOMBIE and text in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def worker_pids(self, prefix: str) -> dict[str, int]:
        """The last process of each worker whose name begins so, from the log."""
        ready = self.events("worker_ready")
        return {event["worker"]: event["pid"] for event in ready if event["worker"].startswith(prefix)}

    def clean_up(self) -> None:
        """End everything by force, and remove what it left."""
        self.session.close()
        if self.process is not None:
            for process in self.descendants() if self.process.poll() is None else []:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)
