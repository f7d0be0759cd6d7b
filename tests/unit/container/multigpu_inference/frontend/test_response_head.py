from __future__ import annotations

from http import HTTPStatus

import pytest

from multigpu_inference.frontend.response_head import BLOCK_LENGTH, ResponseHead


def _length(head: ResponseHead) -> int:
    retry_after = len("Retry-After") + len(head.retry_after) + 8 if head.retry_after else 0
    return len(head.reason) + 2 * len(head.content_type) + len(head.attributes) + retry_after


@pytest.mark.parametrize("status", [200, 400, 406, 413, 415, 422, 500, 503, 504])
@pytest.mark.parametrize("content_type", ["a/b", "application/json", "x/" + "y" * 126])
@pytest.mark.parametrize("attributes", [{}, {"replica": "0"}, {"long": "x" * 600}, {"too": "x" * 3000}])
@pytest.mark.parametrize("retry_after_s", [None, 1, 120])
def test_every_block_has_one_length(
    status: int, content_type: str, attributes: dict[str, str], retry_after_s: int | None
) -> None:
    head = ResponseHead.build(status, content_type, "id", attributes, retry_after_s)
    assert _length(head) == BLOCK_LENGTH
    assert len(head.attributes) <= 1024
    assert head.content_type == content_type


@pytest.mark.parametrize("status", [200, *(status.value for status in HTTPStatus if status >= 400)])
def test_a_phrase_is_a_short_line_of_ascii(status: int) -> None:
    reason = ResponseHead.build(status, "a/b", "id").reason
    assert reason.isascii()
    assert reason.isprintable()
    assert 0 < len(reason) <= 40


def test_attributes_keep_their_order_and_begin_with_the_request_id() -> None:
    head = ResponseHead.build(200, "a/b", "id", {"replica": "1", "queue_ms": "0.1", "request_id": "id"})
    assert head.attributes.rstrip() == "request_id=id;replica=1;queue_ms=0.1"


def test_an_attribute_that_does_not_fit_is_left_out_whole() -> None:
    head = ResponseHead.build(200, "a/b", "id", {"a": "1", "b": "x" * 2000, "c": "3"})
    assert head.attributes.rstrip() == "request_id=id;a=1;c=3"


@pytest.mark.parametrize("value", ["caf\u00e9", "a\r\nb", "a;b", "a b", "\x00", "\u2603"])
def test_an_attribute_cannot_break_the_header(value: str) -> None:
    attributes = ResponseHead.build(200, "a/b", "id", {"a": value, "z": "1"}).attributes.rstrip()
    assert attributes.isascii()
    assert attributes.isprintable()
    assert [pair.partition("=")[0] for pair in attributes.split(";")] == ["request_id", "a", "z"]


@pytest.mark.parametrize("content_type", ["", " ", "a/b\r\nx: y", "caf\u00e9", "x" * 129, "a/b ", "\x00"])
def test_a_content_type_that_no_header_can_hold_is_replaced(content_type: str) -> None:
    assert ResponseHead.build(200, content_type, "id").content_type == "application/octet-stream"


@pytest.mark.parametrize("status", [0, 99, 204, 302, 499, 999])
def test_a_status_that_we_do_not_use_is_500(status: int) -> None:
    head = ResponseHead.build(status, "a/b", "id")
    assert (head.status, head.reason) == (500, "Internal Server Error")
