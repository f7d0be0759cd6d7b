"""How the demo starts, watches and stops the endpoint, shown on stand-ins for the container."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import endpoint
from demo_error import DemoError
from endpoint import Endpoint, cuda_visible, describe_event, free_port
from progress import Progress

# A container in twenty lines: says that it is up, answers /ping, and leaves as its model folder's name tells it to.
STAND_IN = """
import http.server, json, os, pathlib, signal, sys, time
how = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"]).name
event = {"source": "engine", "event": "worker_ready", "replicas": os.environ["MULTIGPU_NUM_REPLICAS"]}
print(json.dumps(event), flush=True)
if how == "broken":
    print("model_fn failed on replica 0: no weights", flush=True)
    sys.exit(3)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *args):
        pass
def leave(number, frame):
    if how == "stubborn":
        return
    sys.exit(4 if how == "unclean" else 0)
signal.signal(signal.SIGTERM, leave)
http.server.HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "container").mkdir()
    (tmp_path / "container" / "entrypoint.py").write_text(STAND_IN)
    monkeypatch.setattr(endpoint, "ROOT", tmp_path)
    monkeypatch.setattr(endpoint, "STOP_LIMIT_S", 0.5)
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    monkeypatch.delenv("MULTIGPU_NUM_REPLICAS", raising=False)


def an_endpoint(tmp_path: Path, how: str) -> Endpoint:
    return Endpoint(tmp_path / how, free_port(), tmp_path / "endpoint.log", Progress())


def test_it_is_ready_inside_and_stopped_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with an_endpoint(tmp_path, "clean") as running:
        port = int(running.url.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert "engine: worker ready replicas=2" in capsys.readouterr().out


def test_an_end_before_it_is_ready_shows_the_logs_last_lines(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"exit code 3(.|\n)*model_fn failed on replica 0: no weights"):
        an_endpoint(tmp_path, "broken").__enter__()


def test_an_unclean_stop_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="stopped with exit code 4"), an_endpoint(tmp_path, "unclean"):
        pass


def test_what_does_not_stop_is_killed(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="did not stop"), an_endpoint(tmp_path, "stubborn") as running:
        port = int(running.url.rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_an_error_inside_is_not_hidden_by_an_unclean_stop(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="no answer"), an_endpoint(tmp_path, "unclean"):
        raise DemoError("no answer")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(DemoError, match=f"port {port} cannot be served on .*SAGEMAKER_BIND_TO_PORT"):
            Endpoint(tmp_path / "clean", port, tmp_path / "endpoint.log", Progress()).__enter__()


@pytest.mark.parametrize("line", ["plain text", "[1]", "7", '{"event": "request", "source": "front-end"}', "{}"])
def test_lines_that_are_no_event_of_its_life_are_left_out(line: str) -> None:
    assert describe_event(line) is None


@pytest.mark.parametrize(("variable", "value"), [("MULTIGPU_DEVICES", "cpu"), ("CUDA_VISIBLE_DEVICES", "")])
def test_gpus_that_are_hidden_do_not_count(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.delenv("MULTIGPU_DEVICES")
    monkeypatch.setenv(variable, value)
    assert not cuda_visible()
