"""A script that tries what a script may not: in each process it looks for credentials, and in a pool worker for a way out."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
from pathlib import Path
from typing import Any

SECRET = "AWS_SECRET_ACCESS_KEY"


class _Bomb:
    """Touches a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def model_fn(model_dir: str) -> str:
    return model_dir


def fetch_fn(body: str, content_type: str) -> dict[str, Any]:
    return {"asked": json.loads(body), "seen": {"fetch_fn": _sees()}}


def input_fn(data: dict[str, Any], content_type: str) -> dict[str, Any]:
    asked = data["asked"]
    data["seen"]["input_fn"] = _sees()
    data["tried"] = {
        **{f"read {path}": _outcome(lambda path=path: _read(path)) for path in asked.get("read", [])},
        **{f"write {path}": _outcome(lambda path=path: Path(path, "written").touch()) for path in asked.get("write", [])},
        **{f"kill {pid}": _outcome(lambda pid=pid: os.kill(pid, 0)) for pid in asked.get("kill", [])},
    }
    if "bomb" in asked:
        _throw(asked["bomb"], asked["socket"])
    return data


def predict_fn(data: dict[str, Any], model: str) -> dict[str, Any]:
    data["seen"]["predict_fn"] = _sees()
    return data


def output_fn(data: dict[str, Any], accept: str) -> str:
    data["seen"]["output_fn"] = _sees()
    return json.dumps(data)


def _sees() -> bool:
    return SECRET in os.environ


def _read(path: str) -> None:
    Path(path).read_bytes()


def _outcome(attempt: Any) -> str:
    try:
        attempt()
    except OSError as error:
        return type(error).__name__
    return "done"


def _throw(bomb: str, engine_socket: str) -> None:
    """Send a pickle that does something to everybody who listens: by a new connection, and by this worker's own."""
    packet = b"f" + pickle.dumps((_Bomb(bomb), []))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(engine_socket)
        sock.send(packet)
        sock.recv(1)  # it hangs up
    for number in range(3, 32):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as sock:
            if sock.type == socket.SOCK_SEQPACKET:
                sock.send(packet)
