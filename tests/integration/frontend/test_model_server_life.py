"""The life of multi-model-server's front end: what starts it, what stops the start, what ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from integration.frontend.front_end import CONTAINER, gone
from integration.frontend.model_server_front_end import ModelServerFrontEnd
from integration.kinds import mms_only
from support import wait_until

pytestmark = mms_only

NewFrontEnd = Callable[..., ModelServerFrontEnd]


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
    assert server.events("front_end_ended")


def test_the_workers_parent_killed_ends_it_with_another_code_and_java_too(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    processes = server.descendants()
    os.kill(server.parent_pid(), signal.SIGKILL)
    assert server.exit_code(within_s=5) == 1
    assert gone(processes)
    assert server.events("front_end_parent_died")


def test_a_worker_killed_costs_its_request_only_and_is_replaced(new_front_end: NewFrontEnd) -> None:
    server = new_front_end().start().ready()
    before = server.serving()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(server.post, "test/hold", b"x")
        victim = wait_until(lambda: server.engine.holding[:1], 5)[0]
        os.kill(victim, signal.SIGKILL)
        assert held.result().status_code == 500
    server.engine.release()
    assert [server.post("test/echo", b"x").status_code for _ in range(100)] == [200] * 100
    wait_until(lambda: len(server.serving()) == len(before), 10)
    assert victim not in server.serving()
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


def test_workers_are_small_and_more_than_the_limit_are_not_started(new_front_end: NewFrontEnd) -> None:
    server = new_front_end(workers=500).start()
    server.workers = 120
    server.ready()
    assert [server.post("test/echo", b"x").status_code for _ in range(240)] == [200] * 240
    own_mb = [psutil.Process(pid).memory_full_info().uss / (1 << 20) for pid in server.serving()]
    assert sum(own_mb) / len(own_mb) < 12
