"""JSON that nobody has thought of: a request, or one line that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matting.photo_request import PhotoRequest, read_json
from multigpu_inference.errors import BadRequest

QUICK, LONG = 200, 20_000
_NAMES = st.sampled_from(["image", "url", "output", "background", "max_side", "save_name", "outputs", "", "\ud800", "a" * 300])
_TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            *(
                "http://a/b",
                "s3://photos/a",
                "S3://a",
                "alpha",
                "alpha,cutout",
                "#fff",
                "red",
                "AAAA",
                "a/b",
                "../a",
                "a.png",
                "a.jpg",
            ),
            *("\ud800", "\0", "9" * 20, "http://" + "a" * 9_000, "\N{GRINNING FACE}" * 100),
        ]
    ),
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_NAMES, inner, max_size=4)),
    max_leaves=8,
)
_RECORDS = st.dictionaries(_NAMES, _VALUES, max_size=5)
_BODIES = st.one_of(
    st.one_of(_RECORDS, st.lists(_RECORDS, max_size=3), _VALUES).map(lambda value: json.dumps(value).encode()),
    st.text(st.sampled_from('{}[],:"\\u0d8image url1e9-+.NaInfty\n\t '), max_size=80).map(str.encode),
    st.binary(max_size=60),
)


def _is_read_or_refused(body: bytes) -> None:
    try:
        found = read_json(body)
    except BadRequest as error:
        _is_one_line(error)
        return
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, BadRequest):
            _is_one_line(each)
        else:
            _is_complete(each)


def _is_one_line(error: BadRequest) -> None:
    body = error.body("0" * 32)
    assert body.isascii()
    assert body.count(b"\n") == 1
    assert len(body) <= 500


def _is_complete(request: PhotoRequest) -> None:
    """It can be passed on: its options are of their types, its name leads nowhere else."""
    options: Any = request.options
    assert options.max_side is None or 1 <= options.max_side <= 65_535
    if request.save is not None:
        parts = request.save.name.split("/")
        assert len(parts) <= 2
        assert all(part and not part.startswith(".") and part.isascii() for part in parts)


@given(_BODIES)
@settings(max_examples=QUICK, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_body_is_read_or_refused_in_one_line(body: bytes) -> None:
    _is_read_or_refused(body)


@pytest.mark.soak
@pytest.mark.timeout(1200)
@given(_BODIES)
@settings(max_examples=LONG, database=None, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_more_bodies_are(body: bytes) -> None:
    _is_read_or_refused(body)
