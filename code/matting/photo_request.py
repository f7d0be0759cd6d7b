"""What a client asks for: one photo by URL or in base64, or as a form's file, with its options. Pure.

Read in the fetch process, or in a pool worker where nobody calls `fetch_fn`.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from matting.options import FIELDS, Options
from matting.s3_location import SCHEME
from matting.save import Save
from multigpu_inference.errors import BadRequest

MAX_ITEMS = 100  # of a list; more are better sent as several requests
SCHEMES = ("http://", "https://", SCHEME)
_KNOWN = ("url", "image", "save_name", *FIELDS)

FileBytes = npt.NDArray[np.uint8]  # of one dimension; not `bytes`, as an array travels between processes without a copy


@dataclass(frozen=True, eq=False)
class PhotoRequest:
    """One photo, and what is wanted of it.

    Attributes:
        source: Where the photo is, or its file's bytes.
        options: What is made of it.
        save: What is stored; None: nothing.
    """

    source: str | FileBytes
    options: Options
    save: Save | None = None

    @classmethod
    def from_record(cls, record: Any) -> PhotoRequest:
        """Read a JSON object.

        Raises:
            BadRequest: it cannot be read; one line that names the field.
        """
        if not isinstance(record, dict) or ("image" in record) == ("url" in record):
            raise BadRequest("the JSON body must be an object with either 'image' (base64) or 'url', or a list of such objects")
        return cls(_source(record), *_wishes(record))

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
        if len(body) and ("url" in record or "image" in record):
            raise BadRequest("the form must have either a file or 'url' or 'image' (base64), not several of them")
        if len(body):
            return cls(np.frombuffer(body, np.uint8), *_wishes(record))
        if ("image" in record) == ("url" in record):
            raise BadRequest("the form must have a file, or a field 'url' or 'image' (base64)")
        return cls(_source(record), *_wishes(record))

    def with_accept(self, accept: str) -> PhotoRequest:
        """The same with what Accept says where the body says nothing; NotAcceptable where nothing can be answered."""
        save = None if self.save is None else self.save.with_accept(accept)
        return replace(self, options=self.options.with_accept(accept), save=save)


Requests: TypeAlias = PhotoRequest | list[PhotoRequest | BadRequest]


def read_json(body: bytes | bytearray | str) -> Requests:
    """Read a JSON body: one request, or for a list one for each item, or in its place the error of one that cannot be read.

    Raises:
        BadRequest: the body, or the one request in it, cannot be read.
    """
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not valid JSON") from error
    if not isinstance(content, list):
        return PhotoRequest.from_record(content)
    if not 1 <= len(content) <= MAX_ITEMS:
        raise BadRequest(f"the list has {len(content)} items: allowed are 1 to {MAX_ITEMS}")
    return [_item(record) for record in content]


def _item(record: Any) -> PhotoRequest | BadRequest:
    try:
        return PhotoRequest.from_record(record)
    except BadRequest as error:
        return error


def _source(record: Mapping[str, Any]) -> str | FileBytes:
    field = "image" if "image" in record else "url"
    value = record[field]
    if not isinstance(value, str):
        raise BadRequest(f"'{field}' must be a string")
    if field == "url":
        if not value.lower().startswith(SCHEMES):
            raise BadRequest(f"'url' must begin with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
        return value
    try:
        return np.frombuffer(base64.b64decode(value, validate=True), np.uint8)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("'image' is not valid base64") from error


def _wishes(record: Mapping[str, Any]) -> tuple[Options, Save | None]:
    for name in record:
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            allowed = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(_KNOWN)}"
            raise BadRequest(f"'{name[:60]}' is not a field of a request; {allowed}")
    options = Options.from_fields(record)
    save = Save.of_name(record["save_name"]) if "save_name" in record else None
    if save is not None and len(options.outputs) > 1:
        raise BadRequest(f"'save_name' stores one output, and 'output' is {', '.join(options.outputs)}")
    return options, save
