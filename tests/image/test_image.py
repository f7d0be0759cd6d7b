"""What the image says about itself, and what is not in it."""

from __future__ import annotations

import json

import pytest

from image.docker_cli import Docker

pytestmark = [pytest.mark.image, pytest.mark.timeout(180)]


def config(docker: Docker, field: str) -> object:
    return json.loads(docker.run("inspect", "--format", f"{{{{json .Config.{field}}}}}", docker.image).stdout)


def test_sagemaker_may_choose_the_port(docker: Docker) -> None:
    labels = config(docker, "Labels")
    assert isinstance(labels, dict)
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"


def test_the_entry_point_is_a_program_not_a_shell(docker: Docker) -> None:
    entrypoint = config(docker, "Entrypoint")
    assert isinstance(entrypoint, list)
    assert entrypoint[0] == "/opt/venv/bin/python"


def test_port_8080_is_exposed(docker: Docker) -> None:
    assert config(docker, "ExposedPorts") == {"8080/tcp": {}}


def test_gpus_are_asked_for(docker: Docker) -> None:
    environment = config(docker, "Env")
    assert isinstance(environment, list)
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(environment)


def test_a_command_other_than_serve_is_refused(docker: Docker) -> None:
    done = docker.run("run", "--rm", docker.image, "train", check=False)
    assert done.returncode == 2
    assert "serve" in done.stderr + done.stdout


def test_it_says_what_it_is_made_of(docker: Docker) -> None:
    bill = json.loads(docker.sh("cat /opt/venv/sbom.cdx.json").stdout)
    names = {component["name"] for component in bill["components"]}
    assert {"torch", "multi-model-server", "netty-codec-http", "multigpu-inference"} <= names


def test_it_holds_no_compiler(docker: Docker) -> None:
    done = docker.sh("for tool in gcc cc g++ clang make; do command -v $tool; done")
    assert done.stdout == ""


def test_it_holds_no_weights_and_nothing_of_the_application(docker: Docker) -> None:
    names = ("checkpoint*.*", "*.safetensors", "u2net*", "fba*", "model.tar.gz")
    wanted = " -o ".join(f"-name '{name}'" for name in names)
    done = docker.sh(f"find / -xdev -type f \\( {wanted} \\) -not -path '*/site-packages/torch/*'")
    assert done.stdout == ""


def test_the_container_package_is_installed_and_compiled(docker: Docker) -> None:
    done = docker.sh("cd / && python -c 'import multigpu_inference as m, os; print(m.__file__, os.stat(m.__cached__).st_size)'")
    file, size = done.stdout.split()
    assert file.startswith("/opt/venv/lib/python3")
    assert int(size) > 0
