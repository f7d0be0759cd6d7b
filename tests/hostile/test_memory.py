"""A file of some hundred kilobytes that becomes a gigabyte: what memory it may have, and what it costs others.

The workers are the same behind either front end: one is enough.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from integration.endpoint import ROOT, Endpoint
from integration.whole_photo import whole_photo_endpoint
from multigpu_inference.config import HTTP

pytestmark = pytest.mark.hostile

SIDE = 7000  # pixels: just below the limit of 50 million


def photo(side: int) -> bytes:
    """A square one with transparency, which takes most memory."""
    file = io.BytesIO()
    Image.new("RGBA", (side, side), (200, 100, 50, 128)).save(file, "PNG", compress_level=1)
    return file.getvalue()


@pytest.fixture
def matting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Endpoint]]:
    made: list[Endpoint] = []

    def start(**environment: str) -> Endpoint:
        made.append(whole_photo_endpoint(tmp_path_factory.mktemp("memory"), HTTP, **environment))
        return made[-1].start().ready()

    yield start
    for each in made:
        each.clean_up()


def test_a_photo_that_needs_more_memory_than_a_pool_worker_may_have_is_413_and_costs_nobody_anything(
    matting: Callable[..., Endpoint],
) -> None:
    endpoint = matting(MULTIGPU_PREPROCESS="pool", MULTIGPU_PREPROCESS_MEMORY_MB="128")
    large, small = photo(5000), photo(64)
    assert len(large) < 1_000_000
    for _ in range(3):
        answer = endpoint.invoke(large, "image/png")
        assert (answer.status_code, answer.json()["error"]) == (413, "payload_too_large")
        assert answer.json()["message"] == "the request needs more memory than it may have"
        assert endpoint.invoke(small, "image/png").status_code == 200
    assert endpoint.events("worker_died") == []


_DECODE = """
import sys
from matting.decode import decode
from multigpu_inference.config import Settings
from multigpu_inference.engine.memory_limit import limit_memory

data = sys.stdin.buffer.read()
limit_memory(Settings.from_env({}).engine.preprocess_memory_bytes)
print(tuple(decode(data).pixels.shape))
"""


def test_the_largest_photo_that_is_taken_fits_into_what_a_pool_worker_may_have_by_default() -> None:
    path = f"{ROOT / 'code'}:{ROOT / 'container'}"
    decoded = subprocess.run(
        [sys.executable, "-c", _DECODE],
        input=photo(SIDE),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=True,
    )
    assert decoded.stdout.split(b"\n")[0] == f"({SIDE}, {SIDE}, 3)".encode()
