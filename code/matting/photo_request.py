"""What a client asks for: one photo by URL or in base64, or as a form's file, with its options. Pure.

Read in the fetch process, or in a pool worker where nobody calls `fetch_fn`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from matting.accept import or_any
from matting.options import FIELDS, Options
from matting.s3_location import SCHEME
from matting.save import Save
from matting.shown import shown
from multigpu_inference.errors import BadRequest

MAX_ITEMS = 100  # of a list; more are better sent as several requests
MAX_URL_LENGTH = 8_000  # characters
SCHEMES = ("http://", "https://", SCHEME)
# Of objects, lists and their items in a body. All requests share one process, and to take millions of them apart would
# keep it from the others for seconds.
_MAX_PARTS = 10_000
_LONGEST_NAME = 40  # characters of a field that may be a known one's misspelling
_KNOWN = ("url", "image", "save_name", *FIELDS)

FileBytes = npt.NDArray[np.uint8]  # of one dimension; not `bytes`, as an array travels between processes without a copy


@dataclass(frozen=True, eq=False)
class PhotoRequest:
    """One photo, and what is wanted of it.

    Attributes:
        source: Where the photo is, or its file's bytes.
        options: What is made of it.
        save: What is stored; None: nothing.
        is_base64: Whether the bytes are the file's base64 and not the file, nor known to be valid.
    """

    source: str | FileBytes
    options: Options
    save: Save | None = None
    is_base64: bool = False

    @classmethod
    def from_record(cls, record: Any) -> PhotoRequest:
        """Read a JSON object; a field that is null counts as left out.

        Raises:
            BadRequest: it cannot be read; one line that names the field.
        """
        given = {name: value for name, value in record.items() if value is not None} if isinstance(record, dict) else {}
        if ("image" in given) == ("url" in given):
            raise BadRequest("the JSON body must be an object with either 'image' (base64) or 'url', or a list of such objects")
        _refuse_unknown(record)
        if "url" in given:
            return cls(_url(given["url"]), *_wishes(given))
        return cls(_base64(given["image"]), *_wishes(given), is_base64=True)

    @classmethod
    def from_form(cls, fields: Mapping[str, str], body: bytes | bytearray) -> PhotoRequest:
        """Read a form: a file and text fields, or text fields alone.

        Args:
            fields: the text fields; an empty one counts as left out, as a page sends those that nobody filled in.
            body: the file's bytes; empty where there is none.

        Raises:
            BadRequest: it cannot be read; one line that names the field.
        """
        record = {name: text.strip() for name, text in fields.items() if text.strip()}
        if "image" in record:
            raise BadRequest("a form has no field 'image': send the photo as the form's file")
        if bool(len(body)) == ("url" in record):
            raise BadRequest("the form must have either a file or a field 'url'")
        _refuse_unknown(record)
        return cls(np.frombuffer(body, np.uint8) if len(body) else _url(record["url"]), *_wishes(record))

    def with_accept(self, accept: str) -> PhotoRequest:
        """The same with what Accept says where the body says nothing.

        Raises:
            NotAcceptable: nothing that the client accepts can be made. The answer to what is stored is always JSON.
        """
        if self.save is None:
            return replace(self, options=self.options.with_accept(accept))
        return replace(self, options=self.options.with_accept(or_any(accept)), save=self.save.with_accept(accept))


Requests: TypeAlias = PhotoRequest | list[PhotoRequest | BadRequest]


def read_json(body: bytes | bytearray | str) -> Requests:
    """Read a JSON body: one request, or for a list one for each item, or in its place the error of one that cannot be read.

    Raises:
        BadRequest: the body, or the one request in it, cannot be read.
    """
    try:
        text = (body if isinstance(body, str) else str(body, "utf-8")).removeprefix("\ufeff")
        _refuse_many_parts(text)
        content: Any = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not valid JSON") from error
    if not isinstance(content, list):
        return PhotoRequest.from_record(content)
    if not 1 <= len(content) <= MAX_ITEMS:
        raise BadRequest(f"the list has {len(content)} items: allowed are 1 to {MAX_ITEMS}")
    return [_item(record) for record in content]


def _refuse_many_parts(text: str) -> None:
    parts = 0
    for mark in "{[,":
        at = text.find(mark)  # over megabytes of base64 much faster than `count`
        while at >= 0:
            parts += 1
            if parts > _MAX_PARTS:
                raise BadRequest(f"the body is JSON of more than {_MAX_PARTS} parts: a list has at most {MAX_ITEMS} requests")
            at = text.find(mark, at + 1)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; `ValueError` where a field is in it twice: who has looked at it before us may have taken the other one."""
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a field is there twice")
    return record


def _refuse_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError(f"{name} is no number")


def _item(record: Any) -> PhotoRequest | BadRequest:
    try:
        return PhotoRequest.from_record(record)
    except BadRequest as error:
        return error


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise BadRequest("'url' must be a string")
    if len(value) > MAX_URL_LENGTH:
        raise BadRequest(f"'url' is longer than {MAX_URL_LENGTH} characters")
    if not value.lower().startswith(SCHEMES):
        raise BadRequest(f"'url' must begin with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
    return value


def _base64(value: Any) -> FileBytes:
    if not isinstance(value, str):
        raise BadRequest("'image' must be a string")
    try:
        return np.frombuffer(value.encode("ascii"), np.uint8)
    except UnicodeEncodeError as error:
        raise BadRequest("'image' is not valid base64") from error


def _refuse_unknown(record: Mapping[str, Any]) -> None:
    for name in record:
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1) if len(name) <= _LONGEST_NAME else []
            allowed = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(_KNOWN)}"
            raise BadRequest(f"{shown(name)} is not a field of a request; {allowed}")


def _wishes(record: Mapping[str, Any]) -> tuple[Options, Save | None]:
    options = Options.from_fields(record)
    save = Save.of_name(record["save_name"]) if "save_name" in record else None
    if save is not None and len(options.outputs) > 1:
        raise BadRequest(f"'save_name' stores one output, and 'output' is {', '.join(options.outputs)}")
    return options, save
