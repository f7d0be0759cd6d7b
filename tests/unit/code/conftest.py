from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.loaders import Loader, create_loader

import matting.s3
from s3_site import CREDENTIALS, running_s3


@pytest.fixture(scope="session")
def s3_site() -> Iterator[str]:
    """A server that does what S3 does."""
    with running_s3() as url:
        yield url


@pytest.fixture(scope="session")
def loader() -> Loader:
    """What AWS's services are like, which takes longer to read than all else that a new client needs."""
    return create_loader()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, loader: Loader) -> pytest.MonkeyPatch:
    """An environment with credentials, in which nothing reaches AWS, and no client from another test."""
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(matting.s3, "_made", None)
    monkeypatch.setattr(botocore.session, "create_loader", lambda *_: loader)
    return monkeypatch


@pytest.fixture
def s3(aws: pytest.MonkeyPatch, s3_site: str) -> Iterator[Any]:
    """A client of that server, with a bucket called `photos`."""
    aws.setenv("AWS_ENDPOINT_URL_S3", s3_site)
    client = boto3.client("s3")
    client.create_bucket(Bucket="photos")
    yield client
    for found in client.list_objects_v2(Bucket="photos").get("Contents", []):
        client.delete_object(Bucket="photos", Key=found["Key"])
    client.delete_bucket(Bucket="photos")
