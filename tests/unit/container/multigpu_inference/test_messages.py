from __future__ import annotations

import pytest

from multigpu_inference.messages import ScriptInfo


@pytest.mark.parametrize(
    ("functions", "types", "content_type", "form", "fetches"),
    [
        ((), None, "a/b", {}, False),
        ((), None, "a/b", {"x": "y"}, False),
        (("fetch_fn",), None, "", {}, True),
        (("fetch_fn",), ("a/b",), "A/b; c=d", {}, True),
        (("fetch_fn",), ("a/b",), "a/bc", {}, False),
        (("fetch_fn",), (), "a/b", {}, False),
        (("fetch_fn",), (), "a/b", {"x": "y"}, True),
    ],
)
def test_which_requests_go_through_fetch_fn(
    functions: tuple[str, ...], types: tuple[str, ...] | None, content_type: str, form: dict[str, str], fetches: bool
) -> None:
    info = ScriptInfo(functions=frozenset(functions), fetch_types=None if types is None else frozenset(types))
    assert info.fetches(content_type, form) is fetches
