from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from bench.bench_error import BenchError
from bench.image_outcome import Answered, PictureError
from bench.image_results import open_results
from bench.image_source import open_source
from s3_site import CREDENTIALS, running_s3


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with running_s3() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL_S3": url}.items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="photos")
        yield client


def test_a_prefix_is_a_source_and_takes_results(s3: Any, tmp_path: Path) -> None:
    keys = ["in/b.jpg", "in/a//c d?.png", "in/ä.jpg", "in/notes.txt", "in/folder/", "in/out/a.jpg.png", "inside.jpg"]
    for key in keys:
        s3.put_object(Bucket="photos", Key=key, Body=key.encode())
    source = open_source("s3://photos/in/", 1, (8, 8), "s3://photos/in/out", tmp_path)
    assert source.names == ["a//c d?.png", "b.jpg", "ä.jpg"]
    assert source.left_out == 1
    assert [source.read(name) for name in source.names] == [b"in/a//c d?.png", b"in/b.jpg", "in/ä.jpg".encode()]
    results = open_results("s3://photos/in/out")
    results.check()
    for name in source.names:
        results.write(Answered(name, b"matte", "image/png"))
    written = [found["Key"] for found in s3.list_objects_v2(Bucket="photos", Prefix="in/out/")["Contents"]]
    assert written == ["in/out/a.jpg.png", "in/out/a//c d?.png.png", "in/out/b.jpg.png", "in/out/ä.jpg.png"]
    found = s3.get_object(Bucket="photos", Key="in/out/b.jpg.png")
    assert (found["Body"].read(), found["ContentType"]) == (b"matte", "image/png")


@pytest.mark.parametrize("where", ["s3://nowhere/prefix", "s3://", "s3:///key"])
def test_a_bucket_that_is_not_there_is_one_line(s3: Any, where: str) -> None:
    with pytest.raises(BenchError, match=r"^s3://[^\n]*$"):
        open_source(where, 1, (8, 8), None, Path("state"))
    with pytest.raises(BenchError, match=r"^s3://[^\n]*$"):
        open_results(where).check()


@pytest.mark.parametrize("name", ["x" * 1100 + ".jpg", "\udcff.jpg"])
def test_a_name_that_no_object_can_have_is_that_picture_s_failure(s3: Any, name: str) -> None:
    with pytest.raises(PictureError, match="no object can have its name"):
        open_results("s3://photos/in").write(Answered(name, b"", "image/png"))
