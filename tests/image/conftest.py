"""Starts containers of the built image with the demo's model, and always removes them.

`DOCKER` names the docker command, `IMAGE` the image; both are the Makefile's (`make smoke`).
"""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from demo_model import prepare_model
from endpoint import free_port
from image.docker_cli import Container, Docker
from multigpu_inference.config import HTTP, MMS

_numbers = itertools.count()


@pytest.fixture(scope="session")
def docker() -> Docker:
    image = os.environ.get("IMAGE", "multigpu-inference:local")
    docker = Docker(tuple(shlex.split(os.environ.get("DOCKER", "docker"))), image)
    # Not a skip: whoever asked for these tests wants to know.
    if docker.run("inspect", image, check=False).returncode != 0:
        pytest.fail(f"there is no image {image}: run these tests with `make smoke`, or set DOCKER and IMAGE")
    return docker


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's model, unpacked as SageMaker would have it."""
    folder = tmp_path_factory.mktemp("opt-ml")
    prepare_model(folder / "model.tar.gz", folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def start(docker: Docker) -> Iterator[Callable[..., Container]]:
    """Start a container in the background, with further arguments for `docker run`."""
    containers: list[Container] = []

    def start_container(*arguments: str) -> Container:
        port = free_port()
        container = Container(docker, f"multigpu-inference-test-{os.getpid()}-{next(_numbers)}", port)
        containers.append(container)
        docker.run(
            *("run", "-d", "--name", container.name, "-p", f"{port}:{port}"),
            *("-e", f"SAGEMAKER_BIND_TO_PORT={port}", "-e", "MULTIGPU_NUM_REPLICAS=2"),
            *(*arguments, docker.image, "serve"),
        )
        return container

    yield start_container
    for container in containers:
        with suppress(subprocess.TimeoutExpired):
            docker.run("rm", "-f", container.name, check=False)


@pytest.fixture(scope="session", params=[MMS, HTTP])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of front end."""
    value: str = request.param
    return value


@pytest.fixture(scope="session")
def serving(start: Callable[..., Container], model_dir: Path, kind: str) -> Container:
    """A container that serves the demo's model, mounted read-only, with as little shared memory as SageMaker gives."""
    container = start("-e", f"MULTIGPU_FRONT_END={kind}", "--shm-size", "64m", "-v", f"{model_dir}:/opt/ml/model:ro")
    container.wait_until_ready()
    return container
