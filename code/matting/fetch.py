"""Brings the photos of a request together: those that a URL names are fetched, those in the body are taken as they are.

Runs in the fetch process, before `input_fn`; where nobody calls `fetch_fn`, within `input_fn`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from matting import s3
from matting.accept import JSON
from matting.photo_file import TYPES, PhotoFile, is_picture_type
from matting.photo_request import FileBytes, PhotoRequest, Requests, read_json
from matting.room import Reserve, Room, unbounded
from matting.s3_location import SCHEME, S3Location
from matting.settings import Settings
from multigpu_inference import Bulk, Fetched, fetch_url, log
from multigpu_inference.errors import BadRequest, PayloadTooLarge, ServingError, Unavailable, UnsupportedMediaType
from multigpu_inference.url_fetch.policy import NO_URLS
from multigpu_inference.url_fetch.watch import SecondsLeft, forever

MAX_LIST_BYTES = 100_000_000  # of a list's photos together: they all wait in memory
MAX_LISTS_BYTES = 500_000_000  # of all lists that are fetched at a time
_FETCHES_AT_A_TIME = 8  # of one list; other requests have threads of their own
_ACCEPT = "image/jpeg, image/png, image/webp"
_SHARE_FOR_FETCHING = 0.5  # of a list's time: what has come by then is still to be computed

_lists_room = Room(MAX_LISTS_BYTES, lambda: Unavailable("too many pictures of lists are being fetched now"))


def fetch_body(
    body: bytes | bytearray | str,
    content_type: str,
    form: Mapping[str, str],
    accept: str,
    settings: Settings,
    seconds_left: SecondsLeft = forever,
) -> Fetched | Bulk:
    """Fetch what a request needs.

    Args:
        body: JSON, or a form's file.
        content_type: of the body.
        form: a form's text fields; empty where the request is no form.
        accept: the request's Accept header. A list is answered in JSON, whatever it says.
        settings: what URLs may point to, and where results are stored.
        seconds_left: for how many seconds somebody still waits for the request.

    Returns:
        A `PhotoFile`, with a `Save` where the result is to be stored; for a JSON list one of these, or an error, for each item.

    Raises:
        ServingError: the request cannot be read, or its photo not be fetched.
    """
    request = _of_form(body, content_type, form) if form else read_json(body)
    if isinstance(request, list):
        return Bulk(_fetch_all(request, settings, seconds_left))
    return _fetched(fetch_photo(request.with_accept(accept), settings, seconds_left))


def fetch_photo(
    request: PhotoRequest, settings: Settings, seconds_left: SecondsLeft = forever, reserve: Reserve = unbounded
) -> PhotoFile:
    """Fetch one photo.

    Args:
        request: which one.
        settings: the operator's.
        seconds_left: for how many seconds somebody still waits for it.
        reserve: takes room for its bytes.

    Raises:
        ServingError: it cannot be had; one line for the client.
    """
    save = None if request.save is None else replace(request.save, place=settings.output_s3)
    data = _bytes_of(request.source, settings, seconds_left, reserve)
    return PhotoFile(data, request.options, save, request.is_base64)


def _of_form(body: bytes | bytearray | str, content_type: str, form: Mapping[str, str]) -> Requests:
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    # A form with one text field and no file has that text as its body too.
    only_text = len(form) == 1 and raw == next(iter(form.values())).encode("utf-8", "surrogatepass")
    if only_text and content_type.split(";")[0].strip().lower() == JSON:
        return read_json(body)
    if len(raw) and not only_text and not is_picture_type(content_type):
        raise UnsupportedMediaType(f"the form's file must have one of the content types {', '.join(TYPES)}")
    return PhotoRequest.from_form(form, b"" if only_text else raw)


def _fetch_all(
    requests: Sequence[PhotoRequest | BadRequest], settings: Settings, seconds_left: SecondsLeft
) -> list[Fetched | ServingError]:
    until = time.monotonic() + seconds_left() * _SHARE_FOR_FETCHING

    def left() -> float:
        return min(seconds_left(), until - time.monotonic())

    def fetch(request: PhotoRequest | BadRequest) -> Fetched | ServingError:
        if isinstance(request, BadRequest):
            return request
        try:
            with room.reserving() as reserve:
                return _fetched(fetch_photo(request.with_accept(JSON), settings, left, reserve))
        except ServingError as error:
            return error
        except Exception as error:  # one of ours: no reason to fail the others
            log.exception("list_item_failed", error)
            return ServingError()

    threads = ThreadPoolExecutor(min(_FETCHES_AT_A_TIME, len(requests)))
    with Room(MAX_LIST_BYTES, _list_is_full, _lists_room) as room, threads:
        return list(threads.map(fetch, requests))


def _list_is_full() -> ServingError:
    return PayloadTooLarge(f"the list's pictures are larger than {MAX_LIST_BYTES / 1e6:g} MB together")


def _fetched(photo: PhotoFile) -> Fetched:
    return Fetched(photo, photo.save if photo.save is not None and photo.save.place is not None else None)


def _bytes_of(source: str | FileBytes, settings: Settings, seconds_left: SecondsLeft, reserve: Reserve) -> FileBytes:
    if not isinstance(source, str):
        reserve(source.nbytes)
        return source
    if not source.lower().startswith(SCHEME):
        body = fetch_url(source, seconds_left=seconds_left, accept=_ACCEPT, reserve=reserve, policy=settings.urls)
        return np.frombuffer(body, np.uint8)
    if not settings.urls.enabled:
        raise BadRequest(NO_URLS)
    try:
        location = S3Location.parse(source)
    except ValueError as error:
        raise BadRequest(f"'url' is no address in S3: {error}") from error
    if not location.key:
        raise BadRequest("'url' is no address in S3: it has no key")
    # Where the operator names hosts, nobody has said of S3 that the role's buckets are among them.
    is_bounded = bool(settings.input_s3 or settings.urls.hosts)
    if is_bounded and not any(allowed.holds(location) for allowed in settings.input_s3):
        raise BadRequest("'url' points to a place in S3 that this endpoint does not read from")
    return np.frombuffer(s3.get_object(location, seconds_left=seconds_left, reserve=reserve), np.uint8)
