"""What the container's own processes may do to each other, and what a script in one of them finds."""

from __future__ import annotations

import json
import shlex
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hostile.another_user import USER, SharedEndpoint
from multigpu_inference.config import HTTP
from support import wait_until

pytestmark = pytest.mark.hostile

SECRET = {"AWS_SECRET_ACCESS_KEY": "secret", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/secret", "AWS_REGION": "eu-west-1"}
# In whose command line credentials may be: those that hand them on, and the one that needs them.
HOLDERS = ("entrypoint.py", "engine.server", "fetch_worker")


def start(kind: str, **environment: str) -> SharedEndpoint:
    settings = {"MULTIGPU_FRONT_END": kind, "MULTIGPU_PREPROCESS": "pool", **SECRET, **environment}
    server = SharedEndpoint(**settings)
    server.with_script("looks_around")
    return server


@pytest.fixture(scope="module")
def shared(kind: str) -> Iterator[SharedEndpoint]:
    """One container that serves `looks_around` as another user."""
    server = start(kind)
    try:
        server.start().ready()
        yield server
    finally:
        server.clean_up()


def run_dir(server: SharedEndpoint) -> Path:
    (folder,) = server.temporary.glob("multigpu-*")
    return folder


def pid_of(server: SharedEndpoint, text: str) -> int:
    return server.processes(text)[0].pid


def test_all_but_the_supervisor_are_an_ordinary_user(shared: SharedEndpoint) -> None:
    assert shared.process is not None
    supervisor = psutil.Process(shared.process.pid)
    assert supervisor.username() == "root"
    assert {process.username() for process in shared.descendants()} == {USER}
    for process in shared.descendants():
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "CapEff:\t0000000000000000" in status


def test_sockets_and_files_are_that_users_alone(shared: SharedEndpoint) -> None:
    folder = run_dir(shared)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert folder.owner() == USER
    assert stat.S_IMODE((folder / "engine.sock").stat().st_mode) == 0o600
    sockets = [path for path in folder.rglob("*") if path.is_socket()]
    assert {path.owner() for path in sockets} == {USER}
    assert not any(path.stat().st_mode & 0o077 for path in sockets)


def test_credentials_are_in_the_environment_of_those_who_need_them_alone(shared: SharedEndpoint) -> None:
    with_secret = set[str]()
    for process in [psutil.Process(shared.process.pid) if shared.process else psutil.Process(), *shared.descendants()]:
        environ, command = process.environ(), " ".join(process.cmdline())
        if any("secret" in value for name, value in environ.items() if name.startswith("AWS_")):
            with_secret |= {holder for holder in HOLDERS if holder in command} or {command}
        elif "multigpu_inference" in command:
            assert environ["AWS_EC2_METADATA_DISABLED"] == "true"
            assert environ["AWS_REGION"] == "eu-west-1"
    assert with_secret == set(HOLDERS)


def test_only_fetch_fn_finds_credentials(shared: SharedEndpoint) -> None:
    seen = shared.invoke({}).json()["seen"]
    assert seen == {"fetch_fn": True, "input_fn": False, "predict_fn": False, "output_fn": False}


def test_a_script_in_the_pool_gets_at_nothing_of_the_others(shared: SharedEndpoint) -> None:
    assert shared.process is not None
    holders = [shared.process.pid, pid_of(shared, "engine.server"), pid_of(shared, "fetch_worker")]
    package = Path(__file__).parents[2] / "container" / "multigpu_inference"
    asked = {
        "read": [f"/proc/{pid}/{name}" for pid in holders for name in ("environ", "mem", "maps")],
        "write": [str(package), str(shared.model_dir), str(shared.model_dir / "code")],
        "kill": [shared.process.pid],
    }
    tried = shared.invoke(asked).json()["tried"]
    assert len(tried) == 13
    assert set(tried.values()) == {"PermissionError"}


def test_it_gets_at_its_own_like(shared: SharedEndpoint) -> None:
    """What the test before would miss if nothing could be read at all."""
    tried = shared.invoke({"read": [f"/proc/{pid_of(shared, 'replica_worker')}/environ"]}).json()["tried"]
    assert list(tried.values()) == ["done"]


def test_a_pickle_that_it_sends_does_nothing_in_the_engine(shared: SharedEndpoint) -> None:
    engine, bomb = pid_of(shared, "engine.server"), run_dir(shared) / "bombed"  # where the engine could make it
    answer = shared.invoke({"bomb": str(bomb), "socket": str(run_dir(shared) / "engine.sock")})
    assert answer.status_code in (422, 503)  # its worker is replaced, as one that cannot be understood
    assert not bomb.exists()
    wait_until(lambda: shared.invoke({}).status_code == 200, 10)
    assert pid_of(shared, "engine.server") == engine


def test_the_engine_hangs_up_on_another_user(shared: SharedEndpoint) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(5)
        sock.connect(str(run_dir(shared) / "engine.sock"))  # as root, whom the file's mode does not stop
        assert sock.recv(1) == b""
    wait_until(lambda: shared.events("connection_refused"), 5)


def test_sigterm_ends_all_and_leaves_nothing(shared: SharedEndpoint) -> None:
    processes = shared.descendants()
    shared.terminate()
    assert shared.wait_exit(25) == 0
    assert [process for process in processes if process.is_running()] == []
    assert list(shared.temporary.iterdir()) == []
    assert '"_aws"' in shared.log.read_text()  # the engine has seen that AWS hands out credentials here: metrics for CloudWatch


@pytest.mark.parametrize("kind", [HTTP], indirect=True)
def test_where_the_model_cannot_be_read_all_stay_root_and_the_log_says_so(kind: str) -> None:
    server = start(kind)
    try:
        script = server.model_dir / "code" / "inference.py"
        script.chmod(0o600)
        server.start().ready()
        assert {process.username() for process in server.descendants()} == {"root"}
        (said,) = server.events("model_folder_not_readable")
        assert said["path"] == str(script)
        assert "MULTIGPU_USER" in said["message"]
        assert run_dir(server).owner() == "root"
        assert server.invoke({}).status_code == 200
    finally:
        server.clean_up()


@pytest.mark.parametrize("kind", [HTTP], indirect=True)
def test_root_and_credentials_for_all_where_the_operator_says_so(kind: str) -> None:
    server = start(kind, MULTIGPU_USER="root", MULTIGPU_AWS_CREDENTIALS="1")
    try:
        server.start().ready()
        assert {process.username() for process in server.descendants()} == {"root"}
        assert set(server.invoke({}).json()["seen"].values()) == {True}
    finally:
        server.clean_up()


@pytest.mark.parametrize("kind", [HTTP], indirect=True)
def test_a_script_may_open_standard_output_by_its_name(kind: str) -> None:
    server = start(kind)
    try:
        script = server.model_dir / "code" / "inference.py"
        line = json.dumps({"time": 0, "event": "opened"})
        opens = f"    print({line!r}, file=open('/dev/stdout', 'w'), flush=True)\n"
        script.write_text(script.read_text().replace("    return model_dir\n", f"{opens}    return model_dir\n"))
        server.command = ["sh", "-c", f"{shlex.join(server.command)} | cat"]  # a pipe of root's, as Docker's is
        server.start().ready()
        assert len(server.events("opened")) == 2  # one of each replica
    finally:
        server.clean_up()


@pytest.mark.parametrize("kind", [HTTP], indirect=True)
def test_a_model_fn_that_finds_no_credentials_is_told_which_setting_gives_them(kind: str) -> None:
    server = start(kind)
    try:
        script = server.model_dir / "code" / "inference.py"
        needs = "    import boto3\n    boto3.client('s3').get_object(Bucket='b', Key='k')\n"
        script.write_text(script.read_text().replace("    return model_dir\n", needs))
        server.start()
        assert server.wait_exit(60) == 3
        (failed,) = server.events("start_failed")
        assert "NoCredentialsError" in failed["message"]
        assert "MULTIGPU_AWS_CREDENTIALS=1" in failed["message"]
    finally:
        server.clean_up()
