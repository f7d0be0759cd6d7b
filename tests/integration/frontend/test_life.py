from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from integration.frontend.front_end import CONTAINER, FrontEnd, gone
from multigpu_inference.config import HTTP
from support import wait_until

NewFrontEnd = Callable[..., FrontEnd]


def test_sigterm_ends_everything_with_0_and_leaves_nothing_outside_the_run_folder(
    new_front_end: NewFrontEnd, kind: str
) -> None:
    server = new_front_end().start().ready()
    server.post("test/echo", b"x")
    processes = server.processes()
    sockets = [str(each.laddr) for process in processes for each in process.net_connections(kind="unix") if each.laddr]
    files = [each.path for process in processes for each in process.open_files() if each.mode != "r"]
    assert sockets or kind == HTTP  # which listens on its port alone
    assert [path for path in sockets + files if not path.startswith(str(server.run_dir))] == []
    assert server.stop() == 0
    assert gone(processes)
    for process in processes:  # what a JVM leaves
        assert not list(Path(tempfile.gettempdir()).glob(f"hsperfdata_*/{process.pid}"))


def test_it_starts_again_in_the_same_run_folder_after_an_unclean_stop(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    processes = server.descendants()
    assert server.process is not None
    server.process.kill()
    server.process.wait()
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end with the one that was killed
            each.kill()
    wait_until(lambda: gone(processes), 5)
    server.engine.stop()
    server.start().ready()
    assert server.post("test/echo", b"x").status_code == 200


def _can_import(user: int) -> bool:
    program = [sys.executable, "-c", "import multigpu_inference, psutil"]
    try:
        done = subprocess.run(program, env={"PYTHONPATH": str(CONTAINER)}, user=user, group=user, cwd="/", capture_output=True)
    except PermissionError:
        return False
    return done.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start it as somebody else")
def test_it_starts_for_an_ordinary_user_with_a_read_only_model_folder(new_front_end: NewFrontEnd, tmp: Path) -> None:
    nobody = 65_534
    if not _can_import(user=nobody):
        pytest.skip("this environment is closed to other users")
    code = tmp / "model" / "code"
    code.mkdir(parents=True)
    code.joinpath("requirements.txt").write_text("there-is-no-such-package\n")
    code.joinpath("json.py").write_text("raise SystemExit\n")  # would take the place of Python's own
    tmp.chmod(0o555)
    server = new_front_end(user=nobody, SAGEMAKER_BASE_DIR=str(tmp)).start().ready()
    assert server.post("test/echo", b"x").status_code == 200
    assert {each.uids().real for each in server.descendants()} == {nobody}
    assert server.stop() == 0
