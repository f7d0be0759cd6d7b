from __future__ import annotations

import pytest

from multigpu_inference.errors import BadRequest, UnsupportedMediaType
from multigpu_inference.frontend.request import make_invocation, of_form, refuse_url_encoded


def test_an_invocation_has_what_the_headers_say() -> None:
    headers = {"accept": "image/png", "x-other": "1"}
    invocation = make_invocation("id", "image/jpeg", headers, 100.0, 55.0)
    assert (invocation.request_id, invocation.content_type, invocation.accept) == ("id", "image/jpeg", "image/png")
    assert (invocation.arrived, invocation.deadline) == (100.0, 155.0)
    assert invocation.headers == headers


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


@pytest.mark.parametrize(
    ("names", "chosen"), [(["body"], 0), (["a", "body"], 1), (["body", "a", "b"], 0), (["picture"], 0), ([""], 0)]
)
def test_the_body_of_a_form(names: list[str], chosen: int) -> None:
    assert of_form([(name, number) for number, name in enumerate(names)]) == chosen


@pytest.mark.parametrize("names", [[], ["a", "b"], ["body", "body"], ["body", "body", "a"]])
def test_a_form_that_leaves_it_open_is_refused(names: list[str]) -> None:
    with pytest.raises(BadRequest, match=f"this one has {len(names)}"):
        of_form([(name, name) for name in names])
