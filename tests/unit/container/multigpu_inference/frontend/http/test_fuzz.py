"""What the HTTP front end makes of bytes that nobody has thought of: an answer in one line, the same in whatever pieces."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multigpu_inference.errors import BadRequest
from multigpu_inference.frontend.http.form import parse_parts
from multigpu_inference.frontend.request import of_form
from unit.container.multigpu_inference.frontend.http.wire import exchange

QUICK, LONG = 200, 20_000
_LINES = st.sampled_from(
    [
        *(b"Content-Length: 4", b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: -1", b"Content-Length: 4, 4"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity"),
        *(b"Content-Type: a/b", b"Content-Type: multipart/form-data; boundary=b", b"Content-Type: multipart/form-data"),
        *(
            b"Connection: close",
            b"Connection: keep-alive",
            b"Expect: 100-continue",
            b" folded",
            b"no colon",
            b"X : y",
            b"X: \0",
        ),
        *(b"Host: x", b"Host: y", b"X: " + b"a" * 70_000, b"", b"\r", b"X: \xff"),
    ]
)
_BODIES = st.sampled_from(
    [
        *(b"", b"abcd", b"4\r\nabcd\r\n0\r\n\r\n", b"0\r\n\r\n", b"zz\r\n", b"5;x=y\r\nabcde\r\n0\r\nX: y\r\n\r\n", b"-1\r\n"),
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--b--\r\n',
        b"--b\r\n\r\n\r\n--b--",
    ]
)
_START = st.builds(
    b"%b %b HTTP/%b\r\n".__mod__,
    st.tuples(
        st.sampled_from([b"POST", b"GET", b"HEAD", b"PUT", b"", b"BREW", b"CONNECT"]),
        st.sampled_from([b"/invocations", b"/ping", b"/", b"*", b"http://x/ping", b"/\xff", b"", b"//", b"/invocations?a=%00"]),
        st.sampled_from([b"1.1", b"1.0", b"0.9", b"2.0", b"1.1 "]),
    ),
)
_REQUEST = st.builds(
    lambda start, lines, body: start + b"\r\n".join([*lines, b"", b""]) + body, _START, st.lists(_LINES, max_size=5), _BODIES
)
_FORM = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--b--\r\n'
_TYPES = st.sampled_from(
    [b"a/b", b"multipart/form-data; boundary=b", b"application/json", b"application/x-www-form-urlencoded"]
)
_GOOD = st.builds(
    lambda target, kind, lines, body: (
        b"POST %b HTTP/1.1\r\nContent-Type: %b\r\nContent-Length: %d\r\n" % (target, kind, len(body))
        + b"".join(line + b"\r\n" for line in lines)
        + b"\r\n"
        + body
    ),
    st.sampled_from([b"/invocations", b"/invocations", b"/ping", b"/metrics/"]),
    _TYPES,
    st.lists(
        st.sampled_from([b"X: y", b"Accept: */*", b"Expect: 100-continue", b"Connection: close", b"X: " + b"a" * 300]),
        max_size=2,
    ),
    st.one_of(st.binary(max_size=30), st.just(_FORM)),
)
_STREAM = st.lists(st.one_of(_GOOD, _GOOD, _GOOD, _REQUEST, st.binary(max_size=40)), min_size=1, max_size=4).map(b"".join)
_CUTS = st.lists(st.integers(0, 400), max_size=6)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut for cut in cuts if cut < len(data)}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if end > start]


def _is_answered_alike_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    whole, cut = exchange([data]), exchange(_pieces(data, cuts))
    for status, body in whole + cut:
        assert status in (200, 400, 404, 405, 413, 415, 431, 503), body
        assert len(body) <= 500 or status == 200
        assert not body or isinstance(json.loads(body), dict)
    # What comes behind garbage, or together with it, may not be answered any more.
    common = min(len(whole), len(cut))
    assert whole[:common] == cut[:common]


@given(_STREAM, _CUTS)
@settings(max_examples=QUICK, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
def test_bytes_are_answered_alike_in_whatever_pieces_they_come(data: bytes, cuts: list[int]) -> None:
    _is_answered_alike_in_any_pieces(data, cuts)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@given(_STREAM, _CUTS)
@settings(max_examples=LONG, database=None, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_more_bytes_are_answered_alike(data: bytes, cuts: list[int]) -> None:
    _is_answered_alike_in_any_pieces(data, cuts)


def test_what_the_fuzzers_engine_says_is_what_was_sent() -> None:
    request = b"POST /invocations HTTP/1.1\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\nabcd"
    assert exchange([request]) == [(200, json.dumps({"type": "a/b", "body": b"abcd".hex(), "form": {}}).encode())]


_PART_BODY = st.binary(max_size=50)
_PART_NAME = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'), min_size=1, max_size=10)


@given(st.lists(st.tuples(_PART_NAME, _PART_BODY), min_size=1, max_size=4))
@settings(max_examples=QUICK, derandomize=True, database=None, deadline=None)
def test_a_form_is_taken_apart_into_what_it_was_made_of(parts: list[tuple[str, bytes]]) -> None:
    body = b"".join(
        b'--qzqzqz\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), data) for name, data in parts
    )
    found = parse_parts("multipart/form-data; boundary=qzqzqz", body + b"--qzqzqz--\r\n")
    assert [bytes(part.body) for part in found] == [data for _, data in parts]
    assert [part.in_form().name for part in found] == [name for name, _ in parts]


_FORM_PIECES = st.sampled_from(
    [
        *(
            b"--b\r\n",
            b"--b--",
            b"--b",
            b"\r\n",
            b"\r\n\r\n",
            b"Content-Disposition: form-data",
            b'; name="a"',
            b"; filename=x",
        ),
        *(
            b"; filename*=utf-8''%ff",
            b"Content-Type: a/b\r\n",
            b"text",
            b"\0",
            b"\xff",
            b":",
            b"--c--",
            b'name="',
            b"Content-Length: 9",
        ),
    ]
)


@given(st.lists(st.one_of(_FORM_PIECES, st.binary(max_size=8)), max_size=20).map(b"".join))
@settings(max_examples=QUICK, derandomize=True, database=None, deadline=None)
def test_what_is_no_form_is_refused_and_nothing_else(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        of_form([part.in_form() for part in parse_parts("multipart/form-data; boundary=b", body)])
