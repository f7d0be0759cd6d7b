from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from integration.frontend.front_end import CONTAINER, FrontEnd, gone
from support import wait_until

NewFrontEnd = Callable[..., FrontEnd]


def _events(server: FrontEnd) -> list[str]:
    lines = [line for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [json.loads(line)["event"] for line in lines]


@pytest.fixture
def tmp() -> Iterator[Path]:
    """A folder that other users can enter."""
    with tempfile.TemporaryDirectory(prefix="fe-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_sigterm_ends_everything_with_0_and_leaves_nothing_outside_the_run_folder(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    server.post("test/echo", b"x")
    processes = server.descendants()
    sockets = [str(each.laddr) for process in processes for each in process.net_connections(kind="unix") if each.laddr]
    files = [each.path for process in processes for each in process.open_files() if each.mode != "r"]
    assert sockets
    assert [path for path in sockets + files if not path.startswith(str(server.run_dir))] == []
    assert server.stop() == 0
    assert gone(processes)
    assert not list(Path(tempfile.gettempdir()).glob(f"hsperfdata_*/{processes[0].pid}"))


def test_sigterm_while_it_starts_ends_it_with_0(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start()
    wait_until(server.run_dir.joinpath("front-end").exists, 10)
    assert server.stop() == 0
    with pytest.raises(requests.ConnectionError):
        server.post("test/echo")


def test_java_killed_ends_it_with_another_code(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    processes = server.descendants()
    server.java().kill()
    assert server.exit_code(within_s=5) == 1
    assert gone(processes)
    assert "front_end_ended" in _events(server)


def test_the_workers_parent_killed_ends_it_with_another_code_and_java_too(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    processes = server.descendants()
    os.kill(server.parent_pid(), signal.SIGKILL)
    assert server.exit_code(within_s=5) == 1
    assert gone(processes)
    assert "front_end_parent_died" in _events(server)


def test_a_worker_killed_costs_its_request_only_and_is_replaced(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    before = server.worker_pids()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(server.post, "test/hold", b"x")
        victim = wait_until(lambda: server.engine.holding[:1], 5)[0]
        os.kill(victim, signal.SIGKILL)
        assert held.result().status_code == 500
    server.engine.release()
    assert [server.post("test/echo", b"x").status_code for _ in range(100)] == [200] * 100
    wait_until(lambda: len(server.worker_pids()) == len(before), 10)
    assert victim not in server.worker_pids()
    assert [server.post("test/echo", b"x").status_code for _ in range(4)] == [200] * 4


def test_the_supervisor_killed_ends_everything(new_front_end: NewFrontEnd) -> None:
    server = new_front_end()
    server.engine.start()
    program = (
        "import os, subprocess, sys;"
        "subprocess.run([sys.executable, '-m', 'multigpu_inference.frontend.model_server', sys.argv[1],"
        " str(os.getpid()), '2'])"
    )
    with server.log.open("ab") as log:
        server.process = subprocess.Popen(
            [sys.executable, "-c", program, str(server.run_dir)], env=server.environment, stdout=log, stderr=log
        )
    server.ready()
    processes = server.descendants()
    server.process.kill()
    server.process.wait()
    wait_until(lambda: gone(processes), 10)


def test_a_handler_that_cannot_be_loaded_stops_the_start(new_front_end: NewFrontEnd, tmp: Path) -> None:
    # Read by every Python at its start: in the workers' parent, and only there, one of our modules cannot be imported.
    tmp.joinpath("sitecustomize.py").write_text(
        "import sys\n"
        "if any(word.endswith('model_service_worker.py') for word in sys.orig_argv):\n"
        "    sys.modules['multigpu_inference.ipc'] = None\n"
    )
    server = new_front_end(PYTHONPATH=f"{CONTAINER}{os.pathsep}{tmp}").start()
    assert server.exit_code(within_s=20) == 1
    log = server.log.read_text()
    assert "ModuleNotFoundError" in log  # the reason is in the log
    died = next(json.loads(line) for line in log.splitlines() if "front_end_parent_died" in line)
    assert died["loaded"] is False


def test_a_handler_that_raises_when_it_loads_stops_the_start(new_front_end: NewFrontEnd) -> None:
    server = new_front_end()
    server.run_dir.joinpath("front-end-parent.new").mkdir()  # it cannot write its process id
    server.start()
    assert server.exit_code(within_s=20) == 1
    assert "IsADirectoryError" in server.log.read_text()


def test_a_setting_that_is_not_allowed_stops_the_start_with_one_line(new_front_end: NewFrontEnd) -> None:
    server = new_front_end(SAGEMAKER_BIND_TO_PORT="40000").start()
    assert server.exit_code(within_s=10) == 2
    lines = server.log.read_text().splitlines()
    assert len(lines) == 1
    assert "SAGEMAKER_BIND_TO_PORT" in json.loads(lines[0])["message"]


def test_a_machine_without_java_stops_the_start(new_front_end: NewFrontEnd) -> None:
    server = new_front_end(JAVA_HOME="/nonexistent").start()
    assert server.exit_code(within_s=10) == 3
    assert "java not found" in server.log.read_text()


def test_a_port_that_is_taken_stops_the_start(new_front_end: NewFrontEnd) -> None:
    server = new_front_end()
    with socket.create_server(("0.0.0.0", server.port)):
        server.start()
        assert server.exit_code(within_s=20) == 1
    assert "Address already in use" in server.log.read_text()


def test_stale_pid_files_and_sockets_do_not_stop_the_start(new_front_end: NewFrontEnd, tmp: Path) -> None:
    server = new_front_end(TMPDIR=str(tmp), TEMP=str(tmp))
    own_folder = server.run_dir / "front-end"
    own_folder.mkdir()
    for folder in (tmp, own_folder):
        folder.joinpath(".model_server.pid").write_text(str(os.getpid()))  # a process that runs
    own_folder.joinpath(".mms.sock.9000").touch()
    server.start().ready()
    assert server.post("test/echo", b"x").status_code == 200


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


def test_workers_are_small_and_more_than_the_limit_are_not_started(new_front_end: NewFrontEnd) -> None:
    server = new_front_end(workers=500).start()
    server.workers = 120
    server.ready()
    assert [server.post("test/echo", b"x").status_code for _ in range(240)] == [200] * 240
    own_mb = [psutil.Process(pid).memory_full_info().uss / (1 << 20) for pid in server.worker_pids()]
    assert sum(own_mb) / len(own_mb) < 12
