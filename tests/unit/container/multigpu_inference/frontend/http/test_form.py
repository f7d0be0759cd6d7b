from __future__ import annotations

import pytest

from multigpu_inference.errors import BadRequest
from multigpu_inference.frontend.http.form import MAX_PARTS, Part, parse_parts

MIXED = "multipart/mixed; boundary=b"


def test_parts_have_their_headers_and_their_bytes() -> None:
    body = b"--b\r\nContent-Type: image/png\r\nX-OTHER:  a b \r\n\r\n\x00\r\n--c\r\n\xff\r\n--b\r\n\r\n\r\n--b--\r\n"
    assert parse_parts(MIXED, body) == [
        Part({"content-type": "image/png", "x-other": "a b"}, bytearray(b"\x00\r\n--c\r\n\xff")),
        Part({}, bytearray()),
    ]


@pytest.mark.parametrize("content_type", ['multipart/mixed; boundary="b"', "MULTIPART/Mixed; a=1; Boundary=b; c=2"])
def test_the_boundary_is_found_however_it_is_written(content_type: str) -> None:
    assert [part.body for part in parse_parts(content_type, b"--b\r\n\r\nx\r\n--b--")] == [b"x"]


def test_what_stands_behind_the_last_boundary_is_nothing() -> None:
    assert len(parse_parts(MIXED, b"--b\r\n\r\nx\r\n--b--\r\n--b\r\n\r\ny\r\n--b--\r\n")) == 1


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('form-data; name="body"; filename="a.png"', "body"),
        ("form-data; name=body", "body"),
        ('form-data; name="caf\xc3\xa9"', "café"),
        ('form-data; name="\xff"', "\ufffd"),
        ('form-data; filename="a.png"', ""),
        ("", ""),
    ],
)
def test_a_part_of_a_form_has_a_name(disposition: str, name: str) -> None:
    head = b"Content-Disposition: " + disposition.encode("latin-1")
    (part,) = parse_parts(MIXED, b"--b\r\n" + head + b"\r\n\r\nx\r\n--b--\r\n")
    assert part.in_form().name == name


@pytest.mark.parametrize(
    ("head", "is_file"),
    [
        ('Content-Disposition: form-data; name="a"', False),
        ('Content-Disposition: form-data; name="a"\r\nContent-Type: text/plain', False),
        ('Content-Disposition: form-data; name="a"; filename="f"', True),
        ('Content-Disposition: form-data; name="a"; filename="f"\r\nContent-Type: text/plain', True),
        ('Content-Disposition: form-data; name="a"\r\nContent-Type: image/png', True),
    ],
)
def test_a_part_is_a_file_where_it_has_a_files_name_or_a_type(head: str, is_file: bool) -> None:
    (part,) = parse_parts(MIXED, b"--b\r\n" + head.encode() + b"\r\n\r\nx\r\n--b--\r\n")
    assert part.in_form().is_file is is_file


def test_a_part_without_a_type_has_none() -> None:
    assert Part().content_type == ""


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("multipart/mixed", b"--b--", "boundary"),
        ("multipart/mixed; boundary=", b"--b--", "boundary"),
        (MIXED, b"", "ends before"),
        (MIXED, b"--b\r\n\r\nx", "ends before"),
        (MIXED, b"--b\r\n\r\nx\r\n--b", "ends before"),
        (MIXED, b"text", "taken apart"),
        (MIXED, b"--b\r\nno colon\r\n\r\nx\r\n--b--", "taken apart"),
        (MIXED, b"--b\r\n\r\nx\r\n" * (MAX_PARTS + 1) + b"--b--", "at most 1000 parts"),
    ],
)
def test_what_cannot_be_taken_apart_is_refused(content_type: str, body: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        parse_parts(content_type, body)


def test_as_many_parts_as_are_allowed_are_taken() -> None:
    assert len(parse_parts(MIXED, b"--b\r\n\r\nx\r\n" * MAX_PARTS + b"--b--")) == MAX_PARTS


def test_no_line_break_gets_into_a_header() -> None:
    for value in (b"a\nX: y", b"a\rX: y", b"a\x00"):
        try:
            parts = parse_parts(MIXED, b"--b\r\nContent-ID: " + value + b"\r\n\r\nx\r\n--b--\r\n")
        except BadRequest:
            continue
        assert not [character for part in parts for character in part.headers["content-id"] if character < " "]
