"""A server that does what S3 does, for tests of several folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from moto.backends import get_backend
from moto.server import ThreadedMotoServer

# What a client of it needs; nothing of it reaches AWS.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nowhere",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
}


@contextmanager
def running_s3() -> Iterator[str]:
    """Run it for the length of the block, empty at first; its URL."""
    for account in get_backend("s3").values():  # all servers of a process have the same
        for backend in account.values():
            backend.reset()
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
