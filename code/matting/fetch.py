"""Brings the photos of a request together: those that a URL names are fetched, those in the body unwrapped.

Runs in the fetch process, before `input_fn`; where nobody calls `fetch_fn`, within `input_fn`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from matting import s3
from matting.accept import JSON
from matting.download import download
from matting.options import Options
from matting.photo_request import FileBytes, PhotoRequest, Requests, read_json
from matting.s3_location import SCHEME, S3Location
from matting.save import Save
from matting.settings import Settings
from multigpu_inference import Bulk, Fetched
from multigpu_inference.errors import BadRequest, PayloadTooLarge, ServingError

MAX_LIST_BYTES = 250_000_000  # of a list's photos together: they all wait in memory
_FETCHES_AT_A_TIME = 8  # of one list; other requests have threads of their own


@dataclass(frozen=True, eq=False)
class PhotoFile:
    """A photo's file, what is wanted of it, and what is stored: what `input_fn` is given in the body's place."""

    data: FileBytes
    options: Options
    save: Save | None = None


def fetch_body(
    body: bytes | bytearray | str, content_type: str, form: Mapping[str, str], accept: str, settings: Settings
) -> Fetched | Bulk:
    """Fetch what a request needs.

    Args:
        body: JSON, or a form's file.
        content_type: of the body.
        form: a form's text fields; empty where the request is no form.
        accept: the request's Accept header.
        settings: what URLs may point to, and where results are stored.

    Returns:
        A `PhotoFile`, with a `Save` where the result is to be stored; for a JSON list one of these, or an error, for each item.

    Raises:
        ServingError: the request cannot be read, or its photo not be fetched.
    """
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    request = _of_form(raw, content_type, form) if form else read_json(raw)
    if isinstance(request, list):
        return Bulk(_fetch_all(request, settings))
    return _fetched(fetch_photo(request.with_accept(accept), settings))


def fetch_photo(request: PhotoRequest, settings: Settings) -> PhotoFile:
    """Fetch one photo.

    Raises:
        ServingError: it cannot be had; one line for the client.
    """
    save = None if request.save is None else replace(request.save, place=settings.output_s3)
    return PhotoFile(_bytes_of(request.source, settings), request.options, save)


def _of_form(body: bytes | bytearray, content_type: str, form: Mapping[str, str]) -> Requests:
    # A form with one text field and no file has that text as its body too.
    only_text = len(form) == 1 and bytes(body) == next(iter(form.values())).encode("utf-8", "surrogatepass")
    if only_text and content_type.split(";")[0].strip().lower() == JSON:
        return read_json(body)
    return PhotoRequest.from_form(form, b"" if only_text else body)


def _fetch_all(requests: Sequence[PhotoRequest | BadRequest], settings: Settings) -> list[Fetched | ServingError]:
    room = _Room(MAX_LIST_BYTES)

    def fetch(request: PhotoRequest | BadRequest) -> Fetched | ServingError:
        if isinstance(request, BadRequest):
            return request
        try:
            room.take(0)
            # A list is answered in JSON, whatever its request's Accept header says.
            photo = fetch_photo(request.with_accept(JSON), settings)
            room.take(photo.data.nbytes)
        except ServingError as error:
            return error
        return _fetched(photo)

    with ThreadPoolExecutor(min(_FETCHES_AT_A_TIME, len(requests))) as threads:
        return list(threads.map(fetch, requests))


class _Room:
    """How many bytes a list's photos may still have together. Used by several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._left = self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take room, or none where that is gone: 0 asks whether there is any."""
        with self._lock:
            self._left -= count
            if self._left < 0:
                raise PayloadTooLarge(f"the list's pictures are larger than {self._max_bytes / 1e6:g} MB together")


def _fetched(photo: PhotoFile) -> Fetched:
    return Fetched(photo, photo.save if photo.save is not None and photo.save.place is not None else None)


def _bytes_of(source: str | FileBytes, settings: Settings) -> FileBytes:
    if not isinstance(source, str):
        return source
    if not source.lower().startswith(SCHEME):
        return np.frombuffer(download(source), np.uint8)
    try:
        location = S3Location.parse(source)
    except ValueError as error:
        raise BadRequest(f"'url' is no address in S3: {error}") from error
    if not location.key:
        raise BadRequest("'url' is no address in S3: it has no key")
    if settings.input_s3 and not any(allowed.holds(location) for allowed in settings.input_s3):
        raise BadRequest("'url' points to a place in S3 that this endpoint does not read from")
    return np.frombuffer(s3.get_object(location), np.uint8)
