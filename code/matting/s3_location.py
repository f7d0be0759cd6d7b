"""A place in S3: a bucket and a key in it, or the beginning of keys. Pure; nothing here talks to AWS."""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "s3://"
_MAX_KEY_BYTES = 1024  # S3's own
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class S3Location:
    """One place.

    Attributes:
        bucket: The bucket's name.
        key: An object's key as it stands, or a prefix without slashes at its ends; "" is the whole bucket.
    """

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, url: str) -> S3Location:
        """Read `s3://bucket` or `s3://bucket/key`.

        The key is taken as it stands: `?`, `#` and `%` are ordinary characters of a key, so this is no URL to take apart.

        Raises:
            ValueError: it is nothing of the kind. Segments `.` and `..` are refused: they name another place than they seem to.
        """
        if not url.lower().startswith(SCHEME):
            raise ValueError("it does not begin with s3://")
        bucket, _, key = url[len(SCHEME) :].partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError("its bucket's name is not one that S3 allows")
        try:
            length = len(key.encode())
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold
            raise ValueError("its key is not valid text") from None
        if _CONTROL.search(key) or length > _MAX_KEY_BYTES:
            raise ValueError(f"its key has control characters or more than {_MAX_KEY_BYTES} bytes")
        if {".", ".."} & set(key.split("/")):
            raise ValueError("its key has . or .. as a segment")
        return cls(bucket, key)

    @classmethod
    def parse_prefix(cls, url: str) -> S3Location:
        """Read `s3://bucket` or `s3://bucket/prefix`, slashes at the prefix's ends or not; ValueError as in `parse`."""
        location = cls.parse(url)
        return cls(location.bucket, location.key.strip("/"))

    def holds(self, other: S3Location) -> bool:
        """Whether another place lies within this one, compared at slashes: `a/b` holds `a/b/c` and not `a/bc`."""
        return self.bucket == other.bucket and (not self.key or f"{other.key}/".startswith(f"{self.key}/"))

    def join(self, name: str) -> S3Location:
        """The place of a name under this prefix."""
        return S3Location(self.bucket, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        """As a URL."""
        return f"{SCHEME}{self.bucket}/{self.key}" if self.key else f"{SCHEME}{self.bucket}"
