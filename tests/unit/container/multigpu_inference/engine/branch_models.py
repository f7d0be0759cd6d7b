"""What test processes of branches load: importable there by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from multigpu_inference.errors import BadRequest

Call = Callable[[Sequence[Any]], Sequence[Any]]


def load_network() -> Call:
    """The same small network in every process."""
    import torch  # the others need none, and start in a fraction of the time

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)).eval()
    return lambda items: [network(item) for item in items]


def load_commands() -> Call:
    """Does what each item says."""
    return lambda items: [_do(*item) if isinstance(item, tuple) else item for item in items]


def _do(command: str, argument: Any = None) -> Any:
    if command == "pid":
        return os.getpid()
    if command == "environ":
        return os.environ.get(argument)
    if command == "raise":
        raise LookupError(argument)
    if command == "refuse":
        raise BadRequest(argument)
    if command == "die":
        os._exit(3)
    if command == "be killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if command == "die once":
        if not Path(argument).exists():
            Path(argument).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"
    if command == "sleep":
        time.sleep(argument)
    if command == "too much":
        raise MemoryError
    return argument


def load_nothing() -> Call:
    raise FileNotFoundError("no weights here")


def load_and_die() -> Call:
    os._exit(3)
