"""How a local container is started, watched and stopped; a stand-in of thirty lines takes the container's place."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

import local_container
from deploy_error import DeployError, Invalid, TimedOut, Unhealthy
from local_container import ContainerCommand, LocalContainer, container_settings, docker_command, entry_point_command
from source_paths import ROOT
from support import free_port

# Says that it is up, answers /ping, and leaves as it is told to.
STAND_IN = """
import http.server, json, os, signal, sys
how, port = sys.argv[1], int(os.environ["SAGEMAKER_BIND_TO_PORT"])
def log(name, **more):
    print(json.dumps({"time": "now", "source": "supervisor", "event": name, **more}), flush=True)
if how in ("bad_settings", "start_failed"):
    log(how, message="MULTIGPU_PLACEMENT='round': allowed are ring, same")
    print("a last line that says nothing", flush=True)
    sys.exit(2 if how == "bad_settings" else 3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if how == "ends":
            os._exit(4)
        self.send_response(503 if how == "never" else 200)
        self.end_headers()
    def log_message(self, *args):
        pass
def leave(number, frame):
    if how != "stubborn":
        sys.exit(5 if how == "unclean" else 0)
signal.signal(signal.SIGTERM, leave)
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
log("plan")
print("Model server started.", flush=True)
if how != "silent":
    log("ready", replicas=3)
server.serve_forever()
"""


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_container, "_POLL_S", 0.02)


def command(how: str, *remove: str) -> ContainerCommand:
    port = free_port()
    return ContainerCommand(
        (sys.executable, "-c", STAND_IN, how), {**os.environ, "SAGEMAKER_BIND_TO_PORT": str(port)}, port, remove
    )


def container(folder: Path, how: str, *remove: str, limit_s: float = 30.0, said: list[str] | None = None) -> LocalContainer:
    told = said if said is not None else []
    return LocalContainer(command(how, *remove), folder / "logs" / "container.log", limit_s, told.append)


def test_it_is_ready_inside_and_stopped_after(tmp_path: Path) -> None:
    said: list[str] = []
    started = command("clean")
    with LocalContainer(started, tmp_path / "log", 30.0, said.append) as running:
        assert local_container.answers_ping(started.port)
        assert running.replicas() == 3
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", started.port))
    assert said == ["supervisor: plan", "supervisor: ready replicas=3"]


def test_an_image_that_does_not_tell_its_replicas_has_an_unknown_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_container, "_READY_LINE_S", 0.3)
    with container(tmp_path, "silent") as running:
        assert running.replicas() is None


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("bad_settings", Invalid, "exit code 2: supervisor: bad settings message=MULTIGPU_PLACEMENT='round'"),
        ("start_failed", Unhealthy, "exit code 3: supervisor: start failed message="),
        ("ends", Unhealthy, "exit code 4: supervisor: ready replicas=3"),
    ],
)
def test_an_end_before_it_is_ready_has_the_exit_code_that_its_cause_needs(
    tmp_path: Path, how: str, kind: type[DeployError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        container(tmp_path, how).__enter__()
    assert words in str(caught.value)
    assert f"(its log: {tmp_path}/logs/container.log)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_docker_cannot_start_is_not_allowed(tmp_path: Path) -> None:
    words = (sys.executable, "-c", "import sys; print('docker: no such image'); sys.exit(125)")
    with pytest.raises(Invalid, match="exit code 125: docker: no such image"):
        LocalContainer(ContainerCommand(words, os.environ, 1, ("true",)), tmp_path / "log", 30.0, print).__enter__()
    with pytest.raises(Unhealthy, match="exit code 125"):  # no docker's own code
        LocalContainer(ContainerCommand(words, os.environ, 1), tmp_path / "log", 30.0, print).__enter__()


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no-such-docker: No such file or directory"):
        LocalContainer(ContainerCommand(("no-such-docker",), {}, 1), tmp_path / "log", 30.0, print).__enter__()


def test_what_is_not_ready_in_time_is_stopped(tmp_path: Path) -> None:
    starting = container(tmp_path, "never", limit_s=0.5)
    with pytest.raises(TimedOut, match=r"not ready within 0\.5 s"):
        starting.__enter__()
    assert starting._process is not None
    assert starting._process.returncode == 0


def test_an_unclean_stop_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unhealthy, match="stopped with exit code 5"), container(tmp_path, "unclean"):
        pass


def test_an_error_inside_is_not_hidden_by_an_unclean_stop(tmp_path: Path) -> None:
    with pytest.raises(TimedOut, match="no answer"), container(tmp_path, "unclean"):
        raise TimedOut("no answer")


def test_what_does_not_stop_is_killed_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_container, "STOP_LIMIT_S", 0.5)
    stubborn = container(tmp_path, "stubborn", "touch", str(tmp_path / "removed"))
    with pytest.raises(Unhealthy, match=r"did not stop within 0\.5 s"), stubborn:
        pass
    assert stubborn._process is not None
    assert stubborn._process.returncode == -9
    assert (tmp_path / "removed").exists()


def test_an_end_while_it_serves_is_told(tmp_path: Path) -> None:
    def end_and_wait(running: LocalContainer) -> None:
        assert running._process is not None
        running._process.terminate()  # by another than us
        running.wait()

    with pytest.raises(Unhealthy, match="ended by itself with exit code 5"), container(tmp_path, "unclean") as running:
        end_and_wait(running)


SHELL = {
    "PATH": "/bin",
    "AWS_SESSION_TOKEN": "secret",
    "AWS_REGION": "eu-central-1",
    "MULTIGPU_DEVICES": "cpu",
    "MULTIGPU_TRACE": " ",
    "MULTIGPU_LOCAL_PORT": "9000",
    "SAGEMAKER_BASE_DIR": "/elsewhere",
    "DOCKER": "sudo docker",
}
SETTINGS = {"MULTIGPU_DEVICES": "cuda", "MULTIGPU_TRACE": "1"}


def test_what_the_shell_says_of_the_container_goes_before_the_settings() -> None:
    assert container_settings(SETTINGS, SHELL, 12_000) == {
        "MULTIGPU_DEVICES": "cpu",
        "MULTIGPU_TRACE": "1",
        "SAGEMAKER_BIND_TO_PORT": "12000",
    }


def test_the_image_runs_as_on_sagemaker() -> None:
    started = docker_command("image:local", Path("/build/ml"), SETTINGS, SHELL, 12_000, gpus=True, name="demo-1")
    assert " ".join(started.words) == (
        "sudo docker run --rm --name demo-1 --publish=127.0.0.1:12000:12000 --shm-size 64m --gpus all "
        "-v /build/ml/model:/opt/ml/model:ro -e MULTIGPU_DEVICES -e MULTIGPU_TRACE -e SAGEMAKER_BIND_TO_PORT "
        "-e AWS_SESSION_TOKEN -e AWS_REGION image:local serve"
    )
    assert started.environment["MULTIGPU_TRACE"] == "1"
    assert started.remove == ("sudo", "docker", "rm", "-f", "demo-1")


def test_without_gpus_none_are_asked_for() -> None:
    started = docker_command("image:local", Path("/build/ml"), {}, {}, 12_000, gpus=False, name="demo-1")
    assert "--gpus" not in started.words
    assert started.words[0] == "docker"


def test_the_entry_point_gets_the_model_folder_and_this_shell() -> None:
    started = entry_point_command(Path("/build/ml"), SETTINGS, SHELL, 12_000)
    assert started.words[0] == sys.executable
    assert started.words[1:] == (str(ROOT / "container" / "entrypoint.py"), "serve")
    assert started.environment["SAGEMAKER_BASE_DIR"] == "/build/ml"
    assert started.environment["AWS_SESSION_TOKEN"] == "secret"
    assert started.environment["MULTIGPU_DEVICES"] == "cpu"
    assert started.remove == ()
