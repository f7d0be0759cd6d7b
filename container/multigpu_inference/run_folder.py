"""The run folder: sockets, the front end's configuration and temporary files of one running container, mode 0700.

Each start makes a new one, so nothing that an unclean stop left behind can be mistaken for ours; folders whose owner
has gone are removed. A lock that the kernel drops with its holder says whether the owner lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multigpu_inference.errors import StartupError

# Where a process of the front end finds the folder, and what lies in it for more than one process.
RUN_DIR_VARIABLE = "MULTIGPU_RUN_DIR"
ENGINE_SOCKET = "engine.sock"
FRONT_END_PARENT_PID = "front-end-parent.pid"

_PREFIX = "multigpu-"
_LOCK = "lock"


@contextmanager
def run_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new run folder for the length of the block.

    Args:
        parent: Where to make it; the system's temporary folder by default.

    Raises:
        StartupError: Nothing can be written there.
    """
    try:
        parent = parent or Path(tempfile.gettempdir())
        _remove_abandoned(parent)
        new = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=parent))
    except OSError as error:
        raise StartupError(f"there is no temporary folder to write to: {error.strerror}") from None
    with (new / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Only a locked folder gets the name by which another start looks for abandoned ones.
        folder = new.rename(new.with_name(new.name.removeprefix("new-")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), open(folder / _LOCK, "r+", opener=_open_no_link) as lock:
            # The lock's owner counts: the folder itself may have been handed over to another user (`unprivileged`).
            if os.fstat(lock.fileno()).st_uid != os.getuid():
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError where its owner lives
            shutil.rmtree(folder, ignore_errors=True)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
