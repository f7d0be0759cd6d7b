from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from multigpu_inference.engine.structure import changed, difference, equal, is_tensor, leaves, place_tensors, tensor_paths


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Frozen:
    pixels: Any
    name: str


@dataclasses.dataclass
class Derived:
    pixels: Any
    count: int = dataclasses.field(init=False, default=7)


class Opaque:
    def __init__(self, value: Any) -> None:
        self.value = value


def one() -> Tensor:
    return torch.ones(2)


def away(tensor: Tensor) -> Tensor:
    """Moves a tensor to the device that stands for a GPU here."""
    return tensor.to("meta")


def where(value: Any) -> dict[str, str]:
    """The device of each tensor by its path."""
    return {path: leaf.device.type for path, leaf in leaves(value) if is_tensor(leaf)}


def test_leaves_have_paths() -> None:
    value = {"a": [1, 2], "b": (3, Pair(4, 5)), "c": Frozen(6, "x"), 7: Opaque(8)}
    paths = [path for path, _ in leaves(value)]
    assert paths == [".a[*]", ".a[*]", ".b[0]", ".b[1][0]", ".b[1][1]", ".c.pixels", ".c.name", ".7"]


def test_a_bare_value_is_a_leaf_with_an_empty_path() -> None:
    assert list(leaves(5)) == [("", 5)]


def test_a_dataclass_itself_is_a_leaf() -> None:
    assert list(leaves(Frozen)) == [("", Frozen)]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (one(), ""),
        ({"x": one()}, ".x"),
        ([one(), one()], "[*]"),
        ((1, one()), "[1]"),
        (Pair(one(), 1), "[0]"),
        (Frozen(one(), "a"), ".pixels"),
        (Derived(one()), ".pixels"),
        (collections.OrderedDict(b=1, a=one()), ".a"),
        (collections.defaultdict(one, {"a": one()}), ".a"),
        ({"x": [Frozen((one(), 2), "a")]}, ".x[*].pixels[0]"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value or "-",
)
def test_the_tensor_at_a_path_is_moved_and_its_container_stays_what_it_is(value: Any, path: str) -> None:
    moved = place_tensors(value, frozenset({path}), away)
    assert where(moved) == {path: "meta"}
    assert difference(moved, value) is None
    assert where(value) == {path: "cpu"}  # what was given is left alone


def test_tensors_elsewhere_stay() -> None:
    moved = place_tensors({"x": one(), "y": [one()]}, frozenset({".y[*]"}), away)
    assert where(moved) == {".x": "cpu", ".y[*]": "meta"}


def test_the_paths_of_all_tensors() -> None:
    assert tensor_paths({"x": one(), "y": [Frozen(one(), "a")], "z": 1}) == {".x", ".y[*].pixels"}


def test_a_leaf_that_is_the_same_each_time_and_another_one_there_is_a_change() -> None:
    assert changed({"id": 1, "v": 2.0}, {"id": 9, "v": 2.0}, {"id": 5, "v": 3.0}) == ".v"
    assert changed({"id": 1, "v": 2.0}, {"id": 9, "v": 2.0}, {"id": 5, "v": 2.0}) is None


def test_a_path_that_is_not_there_moves_nothing() -> None:
    assert where(place_tensors({"x": one()}, frozenset({".y"}), away)) == {".x": "cpu"}


def test_only_tensors_are_moved() -> None:
    array = np.ones(3)
    assert place_tensors({"x": array}, frozenset({".x"}), away)["x"] is array


def test_order_and_factory_of_a_dict_stay() -> None:
    ordered = place_tensors(collections.OrderedDict(b=one(), a=1), frozenset({".b"}), away)
    assert list(ordered) == ["b", "a"]
    default = place_tensors(collections.defaultdict(one, {"a": one()}), frozenset({".a"}), away)
    assert torch.equal(default["new"], one())


@pytest.mark.parametrize("value", [torch.Size([3, 4]), type("Names", (list,), {})(["a"])], ids=["size", "list"])
def test_a_container_of_a_class_of_its_own_stays_what_it_is(value: Any) -> None:
    moved = place_tensors({"x": one(), "other": value}, frozenset({".x"}), away)
    assert type(moved["other"]) is type(value)
    assert moved["other"] == value


@pytest.mark.parametrize(
    "value",
    [
        5,
        None,
        "text",
        [1, 2],
        {"a": one(), "b": [np.ones(3), Pair(1, 2)]},
        Frozen(one(), "a"),
        Opaque(1),
    ],
)
def test_a_value_does_not_differ_from_itself(value: Any) -> None:
    assert difference(value, value) is None


@pytest.mark.parametrize(
    ("here", "there", "words"),
    [
        (1, "1", "the result is str there and int here"),
        (None, one(), "the result is Tensor there and NoneType here"),
        ([1], (1,), "the result is tuple there and list here"),
        ({"a": {"b": 1}}, {"a": {"b": 1.0}}, ".a.b is float there and int here"),
        ({"a": 1}, {"b": 1}, "the result has other keys or another length there"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "the result has other keys or another length there"),
        ({"a": [1, 2]}, {"a": [1]}, ".a has other keys or another length there"),
        ((1, 2), (1, 2, 3), "the result has other keys or another length there"),
        ([torch.ones(2)], [torch.ones(3)], "[*] is (3,) torch.float32 there and (2,) torch.float32 here"),
        (torch.ones(2), torch.ones(2).half(), "the result is (2,) torch.float16 there and (2,) torch.float32 here"),
        (np.ones(2), np.ones((2, 1)), "the result is (2, 1) float64 there and (2,) float64 here"),
        (Frozen(1, "a"), Frozen(None, "a"), ".pixels is NoneType there and int here"),
        (np.ones(2), torch.ones(2), "the result is Tensor there and ndarray here"),
    ],
)
def test_a_difference_in_words(here: Any, there: Any, words: str) -> None:
    assert difference(here, there) == words


def test_values_and_devices_are_no_difference_in_structure() -> None:
    assert difference({"a": 1, "b": one()}, {"a": 2, "b": one().to("meta")}) is None


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (1.0, 1.0 + 1e-6),
        (float("nan"), float("nan")),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0001, float("nan")])),
        (torch.tensor([float("inf")]), torch.tensor([float("inf")])),
        (torch.ones(3).half(), torch.ones(3).half()),
        (torch.ones(3).bfloat16(), torch.ones(3).bfloat16()),
        (torch.ones(3, requires_grad=True), torch.ones(3)),
        (torch.zeros(0), torch.zeros(0)),
        (torch.tensor(3), torch.tensor(3)),
        (np.array([1000.0, 0.0]), np.array([1000.0, 0.05])),
        (np.array(["a"]), np.array(["a"])),
        ({"a": [1, "b", None, True, b"c"]}, {"a": [1, "b", None, True, b"c"]}),
        (Opaque(1), Opaque(1)),
    ],
)
def test_equal_up_to_rounding(here: Any, there: Any) -> None:
    assert equal(here, there)


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (1, 2),
        ("a", "b"),
        (b"a", b"b"),
        (True, False),
        (1.0, 1.01),
        (1.0, float("nan")),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1])),
        (torch.tensor([1, 2]), torch.tensor([1, 3])),
        (torch.tensor([float("nan")]), torch.tensor([1.0])),
        (torch.tensor([float("inf")]), torch.tensor([-float("inf")])),
        (torch.tensor([1 + 1j]), torch.tensor([1 - 1j])),
        (np.array(["a"]), np.array(["b"])),
        (np.float32(1), np.float32(2)),
        ({"a": [1, 2]}, {"a": [1, 3]}),
        (Frozen(one(), "a"), Frozen(one() * 2, "a")),
    ],
)
def test_not_equal(here: Any, there: Any) -> None:
    assert not equal(here, there)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.tensor([1 + 2j]).conj()], ids=["sparse", "conjugated"])
def test_tensors_that_numpy_does_not_know_can_be_compared(tensor: Tensor) -> None:
    assert equal(tensor, tensor)
    assert not equal(tensor, tensor * 2)
