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
    """
    parent = parent or Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    new = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}", dir=parent))
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
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError where its owner lives
                shutil.rmtree(folder, ignore_errors=True)
