"""What a local endpoint is started from, and what is told to the one who starts it."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from botocore.config import Config

import local_endpoint
from deploy_error import Denied, Invalid
from deploy_progress import DeployProgress
from deploy_settings import DeploySettings
from local_account import LocalAccount
from local_endpoint import has_image, how_to_call, local_command
from runtime_proxy import ProxySettings

# Knows one image.
DOCKER = """#!/bin/sh
[ "$1 $2" = "image inspect" ] && [ "$5" = "multigpu-inference:local" ] && echo sha256:0123
"""


@pytest.fixture
def docker(tmp_path: Path) -> str:
    path = tmp_path / "docker"
    path.write_text(DOCKER)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def settings() -> DeploySettings:
    table = {"name": "demo", "environment": {"MULTIGPU_NUM_REPLICAS": "2"}, "smoke": {"files": ["demo/photos/chick.jpg"]}}
    return DeploySettings.from_table(table)


def test_docker_is_taken_where_it_has_the_settings_image(settings: DeploySettings, docker: str, tmp_path: Path) -> None:
    command = local_command(settings, tmp_path, {"DOCKER": docker})
    assert command.words[:2] == (docker, "run")
    assert command.words[-2:] == ("multigpu-inference:local", "serve")
    assert command.environment["MULTIGPU_ENDPOINT_NAME"] == "demo"
    assert command.environment["MULTIGPU_NUM_REPLICAS"] == "2"


@pytest.mark.parametrize("shell", [{"DOCKER": "no-such-docker"}, {"DOCKER": "false"}])
def test_else_the_entry_point_is(settings: DeploySettings, shell: dict[str, str], tmp_path: Path) -> None:
    command = local_command(settings, tmp_path, shell)
    assert command.words[-1] == "serve"
    assert command.words[1].endswith("entrypoint.py")


def test_a_profile_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(Denied, match=r"name one of ~/\.aws/config"):
        LocalAccount("http://127.0.0.1:1")


def test_an_image_that_docker_does_not_have_is_not_there(docker: str) -> None:
    assert has_image("multigpu-inference:local", {**os.environ, "DOCKER": docker})
    assert not has_image("multigpu-inference:other", {**os.environ, "DOCKER": docker})


def test_it_is_told_how_to_call_it(settings: DeploySettings, tmp_path: Path) -> None:
    text = how_to_call("http://127.0.0.1:8082", tmp_path / "answers", tmp_path / "log", settings)
    assert "\nexport AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=http://127.0.0.1:8082\n" in text
    assert "python examples/client.py --endpoint demo demo/photos/chick.jpg " in text
    assert "--endpoint-name demo --content-type image/jpeg --body fileb://demo/photos/chick.jpg " in text
    assert f"answers into {tmp_path / 'answers'}; on SageMaker that needs a table [async]\n" in text


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    with ExitStack() as contexts, pytest.raises(Invalid, match=r"MULTIGPU_LOCAL_PORT=.*allowed is a port from 1 to 65535"):
        local_endpoint._enter_proxy(contexts, ProxySettings("demo", 1, tmp_path), port, DeployProgress())


def test_a_port_that_was_asked_for_and_is_taken_is_named(tmp_path: Path) -> None:
    with ExitStack() as contexts, socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with pytest.raises(Invalid, match=f"port {port} cannot be served on: set MULTIGPU_LOCAL_PORT"):
            local_endpoint._enter_proxy(contexts, ProxySettings("demo", 1, tmp_path), port, DeployProgress())


def test_where_the_usual_port_is_taken_any_other_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as contexts, socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(local_endpoint, "PREFERRED_PORT", other.getsockname()[1])
        proxy = local_endpoint._enter_proxy(contexts, ProxySettings("demo", 1, tmp_path), "", DeployProgress())
        assert proxy.url != f"http://127.0.0.1:{other.getsockname()[1]}"


def test_a_second_one_of_the_same_name_is_refused_and_the_next_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "local"
    first, second = local_endpoint._alone(folder), local_endpoint._alone(folder)
    with first, pytest.raises(Invalid, match="demo is served on this machine already"):
        second.__enter__()
    with local_endpoint._alone(folder):
        pass


def test_the_local_account_has_the_runtime_alone() -> None:
    account = LocalAccount("http://127.0.0.1:9")
    runtime = account.client("sagemaker-runtime", config=Config(read_timeout=75))
    assert runtime.meta.endpoint_url == "http://127.0.0.1:9"
    with pytest.raises(Invalid, match="a local endpoint has no sagemaker"):
        account.call("sagemaker", "list_endpoints")
