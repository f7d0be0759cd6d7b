from __future__ import annotations

import pytest

from multigpu_inference.frontend.answer_headers import (
    MAX_ATTRIBUTES_LENGTH,
    MAX_CONTENT_TYPE_LENGTH,
    attributes_line,
    plain_content_type,
)


@pytest.mark.parametrize("content_type", ["image/png", 'text/csv; charset="utf-8"', "x" * MAX_CONTENT_TYPE_LENGTH])
def test_a_plain_content_type_stays(content_type: str) -> None:
    assert plain_content_type(content_type) == content_type


@pytest.mark.parametrize(
    "content_type", ["", " ", "a/b ", "a/b\r\nX: y", "caf\xe9/x", "a\tb", "x" * (MAX_CONTENT_TYPE_LENGTH + 1)]
)
def test_one_that_no_header_can_hold_is_replaced(content_type: str) -> None:
    assert plain_content_type(content_type) == "application/octet-stream"


def test_attributes_are_pairs_in_their_order() -> None:
    assert attributes_line("id", {"replica": "1", "queue_ms": "0.5"}) == "request_id=id;replica=1;queue_ms=0.5"


def test_what_would_break_the_line_or_the_header_is_replaced() -> None:
    assert attributes_line("id", {"a;b": "c;d\r\ne\xff"}) == "request_id=id;a_b=c_d__e_"


def test_what_does_not_fit_is_left_out_whole() -> None:
    line = attributes_line("id", {"a": "x" * 2000, "b": "1"})
    assert line == "request_id=id;b=1"
    assert len(attributes_line("id", {str(n): "x" * 50 for n in range(100)})) <= MAX_ATTRIBUTES_LENGTH
