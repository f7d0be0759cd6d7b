from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from multigpu_inference.engine.stage import Stage, batch_key, batch_limit


class Plain:
    """A stage that says nothing about its batches."""

    device = "cpu"
    max_batch_size = 8

    def __call__(self, items: Sequence[Any]) -> Sequence[Any]:
        return items


class Telling(Plain):
    """A stage that does."""

    def __init__(self, key: Any, limit: Any) -> None:
        self._key = key
        self._limit = limit

    def batch_key(self, item: Any) -> Hashable:
        key: Hashable = self._key
        return key

    def batch_limit(self, key: Hashable) -> int:
        limit: int = self._limit
        return limit


class Pair(NamedTuple):
    a: Any
    b: Any


@dataclass
class Record:
    a: Any


def same_key(one: Any, other: Any) -> bool:
    return batch_key(Plain(), one) == batch_key(Plain(), other)


def test_a_callable_with_a_device_and_a_batch_size_is_a_stage() -> None:
    assert isinstance(Plain(), Stage)
    assert not isinstance(len, Stage)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2, 3), torch.ones(2, 3)),
        (np.zeros(2), np.ones(2)),
        (Pair(torch.zeros(2), "x"), Pair(torch.zeros(2), 7)),
        ({"a": [torch.zeros(2)]}, {"a": [torch.ones(2)]}),
        (Record(np.zeros(2)), Record(np.ones(2))),
        ("x", 7),
    ],
)
def test_items_of_the_same_shapes_share_a_batch(one: Any, other: Any) -> None:
    assert same_key(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.uint8)),
        (torch.zeros(2), np.zeros(2, np.float32)),
        (torch.zeros(2), [torch.zeros(2)]),
        ((torch.zeros(2), 1), Pair(torch.zeros(2), 1)),
        ({"a": torch.zeros(2)}, Record(torch.zeros(2))),
        ({"a": torch.zeros(2)}, {"b": torch.zeros(2)}),
        ([torch.zeros(2)], [torch.zeros(2), torch.zeros(2)]),
    ],
)
def test_items_of_other_shapes_do_not(one: Any, other: Any) -> None:
    assert not same_key(one, other)


def test_a_stage_may_have_a_key_of_its_own() -> None:
    assert batch_key(Telling("landscape", 8), torch.zeros(2)) == "landscape"


def test_a_key_that_is_not_hashable_is_refused() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        batch_key(Telling([1], 8), "x")


def test_without_a_limit_of_its_own_a_stage_takes_as_many_as_it_may() -> None:
    assert batch_limit(Plain(), None, 5) == 5


@pytest.mark.parametrize(("own", "limit"), [(3, 3), (100, 5), (0, 1), (-1, 1), (2.5, 2)])
def test_a_stages_own_limit_lies_between_one_and_the_most(own: float, limit: int) -> None:
    assert batch_limit(Telling("k", own), "k", 5) == limit
