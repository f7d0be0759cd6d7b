from __future__ import annotations

from typing import Any

import pytest

from matting.shown import shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", r"'a\nb'"),
        (["alpha", 3], "['alpha', 3]"),
        (None, "None"),
        ("x" * 58, f"'{'x' * 58}'"),
        ("x" * 59, f"'{'x' * 59} …"),
        ("x" * 10_000_000, f"'{'x' * 59} …"),
        (list(range(1_000_000)), "[0, 1, 2, 3, 4, 5, ...]"),
    ],
)
def test_is_short(value: Any, text: str) -> None:
    assert shown(value) == text
