"""A folder in S3, `s3://BUCKET/PREFIX`: listed, read and written.

Credentials are found as boto3 finds them; `AWS_ENDPOINT_URL_S3` points it elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.bench_error import BenchError

SCHEME = "s3://"
# Requests at a time: one waits some 30 ms, most of it for the network.
THREADS = 16
_ATTEMPTS = 5
_PROBE = ".writable"


class Bucket:
    """The objects below a prefix, by their names relative to it."""

    def __init__(self, where: str) -> None:
        """Nothing is asked of S3 yet.

        Args:
            where: `s3://BUCKET` or `s3://BUCKET/PREFIX`.

        Raises:
            BenchError: It is none, or boto3 is not there.
        """
        bucket, _, prefix = where.removeprefix(SCHEME).partition("/")
        if not where.startswith(SCHEME) or not bucket:
            raise BenchError(f"{where}: expected is s3://BUCKET/PREFIX")
        self.where = where.rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        try:
            import boto3  # here: most runs do without
            from botocore.config import Config
        except ImportError:
            raise BenchError(f"{where}: reading and writing S3 needs boto3, which is not installed") from None
        config = Config(retries={"mode": "standard", "max_attempts": _ATTEMPTS}, max_pool_connections=2 * THREADS)
        with _told(self.where):
            self._client: Any = boto3.client("s3", config=config)

    def names(self) -> Iterator[str]:
        """All of them, in the order of their keys; `BenchError` where they cannot be listed."""
        with _told(self.where):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
                for found in page.get("Contents", ()):
                    name = str(found["Key"]).removeprefix(self._prefix)
                    if name and not name.endswith("/"):  # consoles make an empty object for a folder
                        yield name

    def get(self, name: str) -> bytes:
        """One object; raises what boto3 raises."""
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"].read()
        return body

    def put(self, name: str, body: bytes, content_type: str) -> None:
        """Write one, which is there as a whole or not at all; `BenchError` where S3 does not take it."""
        with _told(self.where):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=body, ContentType=content_type)

    def check_writable(self) -> None:
        """Write a small object and remove it; `BenchError` where that cannot be."""
        self.put(_PROBE, b"", "application/octet-stream")
        with _told(self.where):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + _PROBE)


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Have what boto3 raises be one line."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, ValueError) as error:
        raise BenchError(f"{where}: {' '.join(str(error).split())}") from None
