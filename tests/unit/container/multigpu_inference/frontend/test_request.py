from __future__ import annotations

import pytest

from multigpu_inference.errors import BadRequest, UnsupportedMediaType
from multigpu_inference.frontend.request import FormPart, is_file_type, make_invocation, of_form, refuse_url_encoded


def test_an_invocation_has_what_the_headers_say() -> None:
    headers = {"accept": "image/png", "x-other": "1"}
    invocation = make_invocation("id", "image/jpeg", headers, 100.0, 55.0)
    assert (invocation.request_id, invocation.content_type, invocation.accept) == ("id", "image/jpeg", "image/png")
    assert (invocation.arrived, invocation.deadline) == (100.0, 155.0)
    assert invocation.headers == headers
    assert invocation.form == {}


def test_an_invocation_has_a_forms_fields() -> None:
    assert make_invocation("id", "", {}, 0.0, 1.0, {"a": "b"}).form == {"a": "b"}


def test_a_client_that_accepts_nothing_in_particular() -> None:
    assert make_invocation("id", "", {}, 0.0, 1.0).accept == ""


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "Application/X-WWW-form-urlencoded; charset=utf-8"]
)
def test_a_url_encoded_form_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="Content-Type"):
        refuse_url_encoded(content_type)


@pytest.mark.parametrize("content_type", ["", "application/json", "x/application/x-www-form-urlencoded"])
def test_other_types_are_not(content_type: str) -> None:
    refuse_url_encoded(content_type)


def file(name: str, body: bytes = b"file", content_type: str = "image/png") -> FormPart:
    return FormPart(name, content_type, body, is_file=True)


def text(name: str, body: bytes = b"text") -> FormPart:
    return FormPart(name, "", body, is_file=False)


@pytest.mark.parametrize(
    "parts",
    [
        [file("body", b"chosen")],
        [file("picture", b"chosen")],
        [file("", b"chosen")],
        [text("body", b"chosen")],
        [file("other"), file("body", b"chosen")],
        [file("body", b"chosen"), file("a"), file("b")],
        [file("picture", b"chosen"), file("other", b"")],  # which nobody has chosen in a browser
    ],
)
def test_the_body_of_a_form(parts: list[FormPart]) -> None:
    form = of_form(parts)
    assert form.body == b"chosen"
    assert form.content_type in ("", "image/png")
    assert form.fields == {}


def test_text_fields_stand_beside_the_file() -> None:
    form = of_form([text("output", b"cutout"), file("picture", b"chosen"), text("name", "é".encode()), text("")])
    assert form == ("image/png", b"chosen", {"output": "cutout", "name": "é", "": "text"})


def test_text_fields_stand_beside_a_text_named_body() -> None:
    assert of_form([text("body", b"[1]"), text("a", b"b")]) == ("", b"[1]", {"a": "b"})


def test_a_form_without_a_file_is_its_fields() -> None:
    assert of_form([text("a", b"1"), text("b", b"2")]) == ("multipart/form-data", b"", {"a": "1", "b": "2"})


def test_a_file_without_a_type_is_bytes() -> None:
    assert of_form([file("picture", b"p", content_type="")]) == ("application/octet-stream", b"p", {})


def test_a_lone_file_may_be_empty() -> None:
    assert of_form([file("picture", b"")]) == ("image/png", b"", {})


def test_a_single_text_is_body_and_field() -> None:
    assert of_form([text("url", b"http://x")]) == ("", b"http://x", {"url": "http://x"})


@pytest.mark.parametrize("body", [b"\xff\xfe", bytes(20_000)])
def test_a_single_part_that_is_no_text_is_a_body_only(body: bytes) -> None:
    assert of_form([text("x", body)]) == ("", body, {})


@pytest.mark.parametrize(
    ("parts", "count"),
    [
        ([], 0),
        ([file("a"), file("b")], 2),
        ([file("body"), file("body")], 2),
        ([file("a"), file("b"), text("c")], 2),
        ([text("body"), file("a")], 2),
        ([text("body"), text("body")], 2),
    ],
)
def test_a_form_that_leaves_it_open_is_refused(parts: list[FormPart], count: int) -> None:
    with pytest.raises(BadRequest, match=f"this one has {count}"):
        of_form(parts)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ([text("long", bytes(20_000))], "text fields are longer than 16384 characters together"),
        ([text("a", bytes(9000)), text("b", bytes(9000))], "text fields are longer than 16384 characters together"),
        ([text("odd", b"\xff")], "field 'odd' is not UTF-8"),
        ([text("a"), text("b"), text("a")], "has the field 'a' more than once"),
    ],
)
def test_what_is_no_text_field_is_refused(fields: list[FormPart], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        of_form([file("picture"), *fields])


@pytest.mark.parametrize(
    ("content_type", "is_file"),
    [("", False), ("text/plain", False), ("Text/Plain; charset=utf-8", False), ("image/png", True), ("text/csv", True)],
)
def test_a_text_field_has_no_type_of_its_own(content_type: str, is_file: bool) -> None:
    assert is_file_type(content_type) is is_file
