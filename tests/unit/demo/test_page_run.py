"""What `make serve` does for its page: which front end, which port. `make demo` and `make serve MODEL=…` stay as they are."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import endpoint
import run
from support import free_port

# Says how it was started, where something listens meanwhile, and ends.
STAND_IN = """
import json, os, pathlib, socket, sys
listens = socket.socket().connect_ex(("127.0.0.1", int(os.environ["PAGE_PORT_TO_TRY"]))) == 0
told = {"front_end": os.environ.get("MULTIGPU_FRONT_END"), "page": listens}
pathlib.Path(os.environ["TELL"]).write_text(json.dumps(told))
sys.exit(3)
"""


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """Left as it was: `main` takes it."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, object]]:
    """Runs `demo/run.py`; what the container was started with."""
    (tmp_path / "container").mkdir()
    (tmp_path / "container" / "entrypoint.py").write_text(STAND_IN)
    (tmp_path / "model" / "code").mkdir(parents=True)
    (tmp_path / "model" / "code" / "inference.py").touch()
    page_port = str(free_port())
    monkeypatch.setattr(endpoint, "ROOT", tmp_path)
    monkeypatch.setattr(run, "BUILD", tmp_path / "build")
    monkeypatch.setattr(run, "OUTPUT", tmp_path / "build" / "demo")
    monkeypatch.setenv("MULTIGPU_DEVICES", "cpu")
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", str(free_port()))
    monkeypatch.setenv("MULTIGPU_DEMO_PAGE_PORT", page_port)
    monkeypatch.setenv("PAGE_PORT_TO_TRY", page_port)
    monkeypatch.setenv("TELL", str(tmp_path / "told"))
    monkeypatch.delenv("MULTIGPU_FRONT_END", raising=False)

    def start(*arguments: str) -> dict[str, object]:
        monkeypatch.setattr("sys.argv", ["run.py", *(argument.format(model=tmp_path / "model") for argument in arguments)])
        assert run.main() == 1
        told: dict[str, object] = json.loads((tmp_path / "told").read_text())
        return told

    return start


def test_make_serve_has_a_page_and_the_front_end_that_has_metrics(started: Callable[..., dict[str, object]]) -> None:
    assert started("--stay") == {"front_end": "http", "page": True}


@pytest.mark.parametrize(("given", "used"), [("mms", "mms"), ("http", "http"), (" ", "http")])
def test_a_front_end_that_is_set_is_used(
    started: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch, given: str, used: str
) -> None:
    monkeypatch.setenv("MULTIGPU_FRONT_END", given)
    assert started("--stay")["front_end"] == used


@pytest.mark.parametrize("arguments", [(), ("--stay", "--model", "{model}")])
def test_without_the_demos_model_to_try_nothing_is_different(
    started: Callable[..., dict[str, object]], arguments: tuple[str, ...]
) -> None:
    assert started(*arguments) == {"front_end": None, "page": False}


@pytest.mark.parametrize("value", ["page", "0", "65536", "-1", "80.5"])
def test_a_page_port_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    monkeypatch.setenv("MULTIGPU_DEMO_PAGE_PORT", value)
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", str(free_port()))
    monkeypatch.setattr("sys.argv", ["run.py", "--stay"])
    assert run.main() == 1
    assert capsys.readouterr().err == f"\ndemo: MULTIGPU_DEMO_PAGE_PORT='{value}': allowed is a port from 1 to 65535\n"


def test_a_busy_page_port_is_told_before_the_endpoint_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("MULTIGPU_DEMO_PAGE_PORT", str(port))
        monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", str(free_port()))
        monkeypatch.setattr("sys.argv", ["run.py", "--stay"])
        assert run.main() == 1
    assert f"port {port} cannot be served on" in capsys.readouterr().err
