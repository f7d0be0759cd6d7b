"""Content types: what a header names, and which of the types that can be made a client gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

JSON, CSV, NPY, NPZ = "application/json", "text/csv", "application/x-npy", "application/x-npz"


def media_type(header: str) -> str:
    """A type without its parameters, in lower case: `text/csv` of `Text/CSV; charset=utf-8`."""
    return header.partition(";")[0].strip().lower()


def accepted(header: str) -> Iterator[str]:
    """The types of an Accept header, in its order as the toolkits take them; those of weight 0 are left out."""
    for entry in header.split(","):
        name, _, parameters = entry.partition(";")
        if name.strip() and _weight(parameters) > 0:
            yield name.strip().lower()


def _weight(parameters: str) -> float:
    """What `q` says; 1 where it says nothing, or nothing that can be read."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 1.0
    return 1.0


def all_accepted(header: str, made: Sequence[str]) -> Iterator[str]:
    """Of the types that can be made those that an Accept header names, in its order; for a `*` the first that fits."""
    for name in accepted(header):
        main, _, sub = name.partition("/")
        if name in made:
            yield name
        elif sub == "*":
            yield from [each for each in made if main in ("*", each.partition("/")[0])][:1]


def first_accepted(header: str, made: Sequence[str]) -> str | None:
    """The first of these; None where there is none."""
    return next(all_accepted(header, made), None)


def answered(header: str, otherwise: str) -> str:
    """The type of an answer that is bytes or text already: the first that the client names outright."""
    return next((name for name in accepted(header) if "*" not in name), otherwise)
