"""Multipart bodies, taken apart: a form, which has one body in it, and `multipart/mixed`, of which each part is a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from multigpu_inference.errors import BadRequest
from multigpu_inference.frontend.request import FormPart, is_file_type
from multigpu_inference.ipc import Buffer

# A bulk request of more is better sent as several.
MAX_PARTS = 1000
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(slots=True)
class Part:
    """One part.

    Attributes:
        headers: Names in lower case.
        body: Its bytes.
    """

    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    @property
    def content_type(self) -> str:
        """Of the body; "" where the part names none."""
        return self.headers.get("content-type", "")

    def in_form(self) -> FormPart:
        """The part as one of a form: a file where it has a file's name, or a type of its own."""
        options: Mapping[bytes, bytes] = parse_options_header(self.headers.get("content-disposition", ""))[1]
        name = options.get(b"name", b"").decode("utf-8", "replace")
        is_file = b"filename" in options or is_file_type(self.content_type)
        return FormPart(name, self.content_type, self.body, is_file)


def parse_parts(content_type: str, body: Buffer) -> list[Part]:
    """The parts of a multipart body, in order.

    Args:
        content_type: With the boundary between them.
        body: All of it.

    Raises:
        BadRequest: where it cannot be taken apart, or has too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadRequest("a multipart body needs a boundary in its Content-Type")
    reader = _Reader()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin,
                "on_part_data": reader.add,
                "on_header_field": reader.add_name,
                "on_header_value": reader.add_value,
                "on_header_end": reader.end_header,
                "on_end": reader.end,
            },
        )
        parser.write(bytes(body))
    except FormParserError:
        raise BadRequest("the multipart body cannot be taken apart") from None
    if not reader.ended:
        raise BadRequest("the multipart body ends before its last boundary")
    return reader.parts


class _Reader:
    """Collects what the parser finds."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._name = self._value = b""

    def begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise BadRequest(f"a multipart body may have at most {MAX_PARTS} parts")
        self.parts.append(Part())

    def add(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].body += memoryview(data)[start:end]

    def add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if _CONTROL.search(self._name + self._value):  # the parser lets line ends through, which begin headers elsewhere
            raise BadRequest("a part's header has a control character in it")
        self.parts[-1].headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._name = self._value = b""

    def end(self) -> None:
        self.ended = True
