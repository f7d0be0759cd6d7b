"""What the operator may set, read from the environment wherever the script runs.

`model_fn` reads it first, so that a bad value stops the start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from matting.accept import ANY, choose
from matting.s3_location import S3Location
from multigpu_inference.errors import NotAcceptable, SettingsError
from multigpu_inference.url_fetch.policy import UrlPolicy

MAX_PHOTO_PIXELS = 50_000_000
MAX_PREFIX_BYTES = 700  # what a `save_name` adds to them still fits into one of S3's keys
_HIGHEST = 1_000_000_000  # pixels: three bytes of each still fit a GPU


@dataclass(frozen=True)
class Settings:
    """The reference application's settings.

    Attributes:
        max_photo_pixels: `MULTIGPU_MAX_PHOTO_PIXELS`: a photo with more is refused before it is decoded.
        matting_max_pixels: `MULTIGPU_MATTING_MAX_PIXELS`: most pixels matted at their own size; 0 is no limit, None the
            device type's default.
        max_batch_size: `MULTIGPU_MAX_BATCH_SIZE`: most pictures in a batch; None is the device type's default.
        output_s3: `MULTIGPU_OUTPUT_S3`: where results with a `save_name` are stored; None: nowhere.
        input_s3: `MULTIGPU_INPUT_S3`: what an s3:// URL may point into; empty: anything that the role may read, or nothing
            where `urls` names hosts.
        default_accept: `SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT`: what is made for a client that accepts anything.
        urls: `MULTIGPU_URLS` and `MULTIGPU_URL_…`: what URLs may point to.
    """

    max_photo_pixels: int = MAX_PHOTO_PIXELS
    matting_max_pixels: int | None = None
    max_batch_size: int | None = None
    output_s3: S3Location | None = None
    input_s3: tuple[S3Location, ...] = ()
    default_accept: str = ANY
    urls: UrlPolicy = field(default_factory=UrlPolicy)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: one is not allowed; one line with its name, its value and what is allowed.
        """
        max_photo_pixels = _integer(environ, "MULTIGPU_MAX_PHOTO_PIXELS", 1)
        one_place = f"one s3://bucket or s3://bucket/prefix, the prefix of at most {MAX_PREFIX_BYTES} bytes"
        output_s3 = _locations(environ, "MULTIGPU_OUTPUT_S3", one_place)
        if len(output_s3) > 1 or any(len(place.key.encode()) > MAX_PREFIX_BYTES for place in output_s3):
            raise _refused(environ, "MULTIGPU_OUTPUT_S3", one_place)
        return cls(
            max_photo_pixels=MAX_PHOTO_PIXELS if max_photo_pixels is None else max_photo_pixels,
            matting_max_pixels=_integer(environ, "MULTIGPU_MATTING_MAX_PIXELS", 0),
            max_batch_size=_integer(environ, "MULTIGPU_MAX_BATCH_SIZE", 1),
            output_s3=output_s3[0] if output_s3 else None,
            input_s3=_locations(environ, "MULTIGPU_INPUT_S3", "s3://bucket or s3://bucket/prefix, several with spaces between"),
            default_accept=_accept(environ, "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT"),
            urls=UrlPolicy.from_env(environ),
        )

    def accept_of(self, header: str | None) -> str:
        """What a request's Accept header asks for, where None or an open one is the default."""
        accept = (header or "").strip()
        return self.default_accept if accept in ("", ANY) else accept


def _integer(environ: Mapping[str, str], name: str, lowest: int) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text) or not lowest <= int(text) <= _HIGHEST:
        raise _refused(environ, name, f"a whole number from {lowest} to {_HIGHEST}")
    return int(text)


def _locations(environ: Mapping[str, str], name: str, allowed: str) -> tuple[S3Location, ...]:
    try:
        return tuple(S3Location.parse_prefix(url) for url in environ.get(name, "").split())
    except ValueError:
        raise _refused(environ, name, allowed) from None


def _accept(environ: Mapping[str, str], name: str) -> str:
    accept = environ.get(name, "").strip()
    try:
        choose(accept)
    except NotAcceptable as error:
        raise _refused(environ, name, f"what can be made; {error}") from None
    return accept or ANY


def _refused(environ: Mapping[str, str], name: str, allowed: str) -> SettingsError:
    return SettingsError(f"{name}={environ[name].strip()!r}: allowed is {allowed}")
