"""Nested values: where their tensors stand, whether two have the same structure, whether they are equal.

Runs in a replica worker. Containers that are looked into are dict, list, tuple, named tuple and dataclass; everything
else is a leaf. A place in a value is a path such as `.image`, `[0]` or `.boxes[*]`: a list's items share one path,
because its length may differ from request to request.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from multigpu_inference.engine import codec

Parts: TypeAlias = list[tuple[str, Any]]

# Kernels of a CPU and a GPU round differently; a mean that was not loaded or a seed differs by more.
_RELATIVE = 1e-3  # of a number
_OF_LARGEST = 1e-4  # of an array's largest number, for those of its numbers that are near 0


def _parts(value: Any) -> Parts | None:
    """A container's items with the last part of their paths; None for a leaf."""
    if isinstance(value, dict):
        return [(f".{key}", item) for key, item in value.items()]
    if isinstance(value, list):
        return [("[*]", item) for item in value]
    if isinstance(value, tuple):
        return [(f"[{i}]", item) for i, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{f.name}", getattr(value, f.name)) for f in dataclasses.fields(value)]
    return None


def _rebuild(value: Any, items: list[Any]) -> Any:
    """The same container with other items; itself where they are its own."""
    if all(new is old for new, (_, old) in zip(items, _parts(value) or [], strict=True)):
        return value
    if isinstance(value, dict):
        changed = copy.copy(value)  # keeps an OrderedDict one
        changed.update(zip(value, items, strict=True))
        return changed
    if isinstance(value, list):
        return items
    if isinstance(value, tuple):
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    changed = copy.copy(value)
    for f, item in zip(dataclasses.fields(value), items, strict=True):
        object.__setattr__(changed, f.name, item)  # frozen ones too
    return changed


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf with its path."""
    parts = _parts(value)
    if parts is None:
        yield path, value
        return
    for name, item in parts:
        yield from leaves(item, path + name)


def place_tensors(value: Any, paths: frozenset[str], move: Callable[[Any], Any], path: str = "") -> Any:
    """The same value with `move` applied to the tensors at `paths`."""
    parts = _parts(value)
    if parts is not None:
        return _rebuild(value, [place_tensors(item, paths, move, path + name) for name, item in parts])
    return move(value) if path in paths and is_tensor(value) else value


def tensor_paths(value: Any) -> frozenset[str]:
    """The paths of all tensors."""
    return frozenset(path for path, leaf in leaves(value) if is_tensor(leaf))


def is_tensor(value: Any) -> bool:
    """Whether this is a tensor; False without importing torch where nobody has."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def difference(here: Any, there: Any, path: str = "") -> str | None:
    """Where two values differ in structure (types, keys, lengths, shapes), in words; None where they do not."""
    where = path or "the result"
    if type(here) is not type(there):
        return f"{where} is {type(there).__name__} there and {type(here).__name__} here"
    if is_tensor(here) or isinstance(here, np.ndarray):
        if (tuple(here.shape), here.dtype) != (tuple(there.shape), there.dtype):
            return f"{where} is {tuple(there.shape)} {there.dtype} there and {tuple(here.shape)} {here.dtype} here"
        return None
    mine, other = _parts(here), _parts(there)
    if mine is None or other is None:
        return None
    if [name for name, _ in mine] != [name for name, _ in other]:
        return f"{where} has other keys or another length there"
    items = zip(mine, other, strict=True)
    return next((d for (name, a), (_, b) in items if (d := difference(a, b, path + name))), None)


def equal(here: Any, there: Any) -> bool:
    """Whether two values of one structure hold the same, numbers up to rounding."""
    pairs = zip(leaves(here), leaves(there), strict=True)
    return all(_equal_leaf(a, b) for (_, a), (_, b) in pairs)


def changed(here: Any, again: Any, there: Any) -> str | None:
    """The path of a leaf that is the same each time here and another one there; None where there is none.

    Leaves that differ between `here` and `again` (random numbers, times, ids) say nothing. All three have one structure.
    """
    for (path, a), (_, b), (_, c) in zip(leaves(here), leaves(again), leaves(there), strict=True):
        if _equal_leaf(a, b) and not _equal_leaf(a, c):
            return path or "result"
    return None


def _equal_leaf(a: Any, b: Any) -> bool:
    if is_tensor(a):
        a, b = _as_array(a), _as_array(b)
    if isinstance(a, np.ndarray | np.generic):
        a, b = np.asarray(a), np.asarray(b)
        if not np.issubdtype(a.dtype, np.inexact):
            return bool(np.array_equal(a, b))
        return bool(np.allclose(a, b, rtol=_RELATIVE, atol=_OF_LARGEST * _largest(a), equal_nan=True))
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=_RELATIVE) or (math.isnan(a) and math.isnan(b))
    return _equal_object(a, b)


def _equal_object(a: Any, b: Any) -> bool:
    """Whether two objects of any kind are the same: by their own word, or else by what they pickle to."""
    try:
        same = bool(a == b)
    except Exception:  # of an array-like a comparison is no truth value
        same = False
    try:
        return same or [bytes(x) for x in codec.encode(a)] == [bytes(x) for x in codec.encode(b)]
    except Exception:  # what does not pickle cannot be compared, and has not come from another process
        return False


def _as_array(tensor: Any) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu()
    tensor = (tensor if tensor.layout is sys.modules["torch"].strided else tensor.to_dense()).resolve_conj().resolve_neg()
    return np.asarray(tensor.double() if tensor.is_floating_point() else tensor)


def _largest(array: np.ndarray[Any, Any]) -> float:
    finite = array[np.isfinite(array)]
    return float(np.abs(finite).max()) if finite.size else 0.0
