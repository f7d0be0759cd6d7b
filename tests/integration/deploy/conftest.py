from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.backends import get_backend

from integration.deploy.command import Cli, put_image
from integration.deploy.fake_aws import REGION, FakeAws, FakeAwsServer

_BACKENDS = ("applicationautoscaling", "cloudwatch", "codebuild", "ecr", "iam", "logs", "s3", "sagemaker")


class _KeptClients:
    """A session that makes each client once."""

    def __init__(self) -> None:
        self.region_name = REGION
        self._session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
        self._kept: dict[tuple[Any, ...], Any] = {}

    def client(self, service_name: str, region_name: str | None = None, config: Any = None) -> Any:
        key = (service_name, region_name, config and config.read_timeout)
        if key not in self._kept:
            self._kept[key] = self._session.client(service_name, region_name=region_name, config=config)
        return self._kept[key]

    def close(self) -> None:
        for client in self._kept.values():
            client.close()


@pytest.fixture(scope="session")
def server() -> Iterator[FakeAwsServer]:
    """One for all tests of a run: moto takes seconds to load its services."""
    server = FakeAwsServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_session() -> Iterator[boto3.Session]:
    """boto3 makes its clients from models that take it a second to read, SageMaker's alone."""
    session = _KeptClients()
    yield session
    session.close()


@pytest.fixture
def aws(server: FakeAwsServer, monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    """An empty account."""
    for name in _BACKENDS:
        for account in get_backend(name).values():  # type: ignore[call-overload]
            for backend in account.values():
                backend.reset()
    server.aws = FakeAws()
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    return server.aws


@pytest.fixture
def repository(aws: FakeAws, shared_session: boto3.Session) -> Any:
    """The ECR client of an account that has the image."""
    client = shared_session.client("ecr")
    client.create_repository(
        repositoryName="multigpu-inference", tags=[{"Key": "multigpu-inference:deployment", "Value": "demo"}]
    )
    put_image(client)
    aws.calls.clear()
    return client


@pytest.fixture
def cli(repository: Any, tmp_path: Path, shared_session: boto3.Session, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(tmp_path, shared_session, capsys)
