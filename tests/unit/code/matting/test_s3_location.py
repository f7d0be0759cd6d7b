from __future__ import annotations

import pytest

from matting.s3_location import S3Location


@pytest.mark.parametrize(
    ("url", "bucket", "key"),
    [
        ("s3://photos", "photos", ""),
        ("s3://photos/", "photos", ""),
        ("S3://my.photos-1/a/b c.jpg", "my.photos-1", "a/b c.jpg"),
        ("s3://photos/a%20b?x=1#y", "photos", "a%20b?x=1#y"),
        ("s3://photos//a/ü/", "photos", "/a/ü/"),
    ],
)
def test_reads_a_url(url: str, bucket: str, key: str) -> None:
    assert S3Location.parse(url) == S3Location(bucket, key)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("photos/a", "begin with s3://"),
        ("https://photos/a", "begin with s3://"),
        ("s3://", "bucket's name"),
        ("s3:///a", "bucket's name"),
        ("s3://Photos/a", "bucket's name"),
        ("s3://ab/a", "bucket's name"),
        ("s3://user@photos/a", "bucket's name"),
        ("s3://photos/a/../b", "as a segment"),
        ("s3://photos/.", "as a segment"),
        ("s3://photos/a\nb", "control characters"),
        (f"s3://photos/{'ü' * 513}", "more than 1024 bytes"),
        ("s3://photos/\ud800", "not valid text"),
    ],
)
def test_refuses_what_is_none(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        S3Location.parse(url)


@pytest.mark.parametrize("url", ["s3://photos/a/b", "s3://photos//a/b//"])
def test_a_prefix_has_no_slash_at_its_ends(url: str) -> None:
    assert S3Location.parse_prefix(url) == S3Location("photos", "a/b")


@pytest.mark.parametrize(
    ("prefix", "key", "holds"),
    [
        ("", "anything", True),
        ("a/b", "a/b/c.jpg", True),
        ("a/b", "a/b", True),
        ("a/b", "a/bc.jpg", False),
        ("a/b", "a", False),
        ("a/b", "/a/b/c", False),
    ],
)
def test_holds_what_lies_within_it(prefix: str, key: str, holds: bool) -> None:
    assert S3Location("photos", prefix).holds(S3Location("photos", key)) is holds
    assert not S3Location("photos", prefix).holds(S3Location("others", key))


def test_reads_as_a_url() -> None:
    assert [str(S3Location("photos", key)) for key in ("", "a/b")] == ["s3://photos", "s3://photos/a/b"]
