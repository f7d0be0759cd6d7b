"""Chooses what a request's Accept header asks for. Runs in the fetch process and the pool workers."""

from __future__ import annotations

from typing import NamedTuple

from multigpu_inference.errors import NotAcceptable

PNG = "image/png"
WEBP = "image/webp"
JSON = "application/json"
NPY = "application/x-npy"
ANY = "*/*"

ALPHA, CUTOUT, TRIMAP = "alpha", "cutout", "trimap"
OUTPUTS = (ALPHA, CUTOUT, TRIMAP)

# What a range of types stands for: always the first that is made.
_OFFERS = {
    ANY: PNG,
    "image/*": PNG,
    "application/*": JSON,
    PNG: PNG,
    WEBP: WEBP,
    JSON: JSON,
    NPY: NPY,
}
_OPEN = (ANY, "application/*", JSON)  # what a client accepts that can take JSON


class Choice(NamedTuple):
    """What is made: one of the four types, and the output that a parameter such as `;cutout` names, "" where none does."""

    media_type: str
    output: str


def choose(accept: str, *, only_json: bool = False) -> Choice:
    """Pick what to make.

    Args:
        accept: an Accept header: types with parameters and `q` values, separated by commas; empty means any.
        only_json: there is more than one output, which only JSON can hold.

    Returns:
        Of what the client accepts and can be made, that with the highest `q`, among equals the first.

    Raises:
        NotAcceptable: the client accepts nothing of it.
    """
    candidates: list[tuple[float, Choice]] = []
    for entry in (accept.strip() or ANY).split(","):
        name, *parameters = [part.strip().lower() for part in entry.split(";")]
        offer = _OFFERS.get(name) if not only_json else JSON if name in _OPEN else None
        quality = _quality(parameters)
        if offer is not None and quality > 0:
            output = next((parameter for parameter in parameters if parameter in OUTPUTS), "")
            candidates.append((quality, Choice(offer, output)))
    if not candidates and only_json:
        raise NotAcceptable(f"several outputs are answered together as {JSON} only")
    if not candidates:
        raise NotAcceptable(f"answers are made as {PNG}, {PNG};cutout, {PNG};trimap, {WEBP}, {JSON} or {NPY}")
    return max(candidates, key=lambda candidate: candidate[0])[1]


def or_any(accept: str) -> str:
    """The same header, or one that accepts anything where nothing that it names can be made."""
    try:
        choose(accept)
    except NotAcceptable:
        return ANY
    return accept


def _quality(parameters: list[str]) -> float:
    """The `q` of a type, 0 to 1; one that cannot be read counts as 0."""
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                return 0.0
            return quality if 0 <= quality <= 1 else 0.0
    return 1.0
