"""Checks a request against botocore's own service model: required members, lengths, ranges, enums, patterns.

botocore itself checks types and required members only, so that AWS would refuse the rest, one mistake at a time and after
the first things have been made.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
from botocore import xform_name

_SHOWN = 80


def violations(service: str, operation: str, request: Mapping[str, Any]) -> tuple[str, ...]:
    """What AWS would refuse in a request.

    Args:
        service: As boto3 calls it, such as `sagemaker`.
        operation: As boto3 calls it, such as `create_model`.
        request: Its arguments.

    Returns:
        One line for each value: where it is, what it is, what is allowed.
    """
    return tuple(_walk(operation, _input_shape(service, operation), request))


def enum_values(service: str, shape: str) -> tuple[str, ...]:
    """The values of an enum of the service's model."""
    return tuple(_model(service).shape_for(shape).enum)


@cache
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


@cache
def _input_shape(service: str, operation: str) -> Any:
    model = _model(service)
    name = next(name for name in model.operation_names if xform_name(name) == operation)
    return model.operation_model(name).input_shape


def _walk(where: str, shape: Any, value: Any) -> Iterator[str]:
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, Mapping):
            yield f"{where}={_shown(value)}: allowed is a table"
            return
        for name in shape.required_members:
            if name not in value:
                yield f"{where}: {name} is missing"
        for name, part in value.items():
            if name in shape.members:
                yield from _walk(f"{where}.{name}", shape.members[name], part)
            else:
                near = difflib.get_close_matches(name, shape.members, n=1)
                yield f"{where}: there is no {name}" + (f"; did you mean {near[0]}?" if near else "")
    elif kind == "list":
        yield from _range(where, shape, len(value), "entries")
        for index, part in enumerate(value):
            yield from _walk(f"{where}[{index}]", shape.member, part)
    elif kind == "map":
        yield from _range(where, shape, len(value), "entries")
        for key, part in value.items():
            yield from _walk(f"{where}: name {key}", shape.key, key)
            yield from _walk(f"{where}.{key}", shape.value, part)
    elif kind == "string":
        yield from _string(where, shape, value)
    elif kind in ("integer", "long", "float", "double"):
        allowed = (int,) if kind in ("integer", "long") else (int, float)
        if type(value) not in allowed:
            yield f"{where}={_shown(value)}: allowed is a number"
        else:
            yield from _range(where, shape, value, "")
    elif kind == "boolean" and not isinstance(value, bool):
        yield f"{where}={_shown(value)}: allowed is true or false"


def _string(where: str, shape: Any, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{where}={_shown(value)}: allowed is a text"
        return
    if shape.enum:
        if value not in shape.enum:
            near = difflib.get_close_matches(value, shape.enum, n=4, cutoff=0.4)
            yield f"{where}={_shown(value)}: not a value that AWS knows" + (f"; near are {', '.join(near)}" if near else "")
        return
    yield from _range(where, shape, len(value), "characters")
    pattern = _pattern(shape.metadata.get("pattern"))
    if pattern is not None and not pattern.fullmatch(value):
        yield f"{where}={_shown(value)}: allowed is what matches {shape.metadata['pattern']}"


def _range(where: str, shape: Any, size: float, unit: str) -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if (low is not None and size < low) or (high is not None and size > high):
        limits = f"{low if low is not None else 'any'} to {high if high is not None else 'any'}"
        yield f"{where}: {size:g} {unit}".rstrip() + f": allowed are {limits}"


@cache
def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    if r"\p{L}" in text:
        # Letters have no class that can stand within another one: \w has them, with digits and the underscore.
        text = text.replace(r"\p{L}", r"\w").replace(r"\p{Z}", r"\s").replace(r"\p{N}", r"\d")
    try:
        return re.compile(text)
    except re.error:
        return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
