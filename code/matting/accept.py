"""Chooses the type of an answer from a request's Accept header. Runs in the pool workers."""

from __future__ import annotations

from multigpu_inference.errors import NotAcceptable

ALPHA_PNG = "image/png"
CUTOUT_PNG = "image/png;cutout"
JSON = "application/json"
NPY = "application/x-npy"

# What a range of types stands for: always the first that is made.
_OFFERS = {
    "*/*": ALPHA_PNG,
    "image/*": ALPHA_PNG,
    "application/*": JSON,
    ALPHA_PNG: ALPHA_PNG,
    JSON: JSON,
    NPY: NPY,
}


def choose_type(accept: str) -> str:
    """Pick the answer's type.

    Args:
        accept: an Accept header: types with parameters and `q` values, separated by commas; empty means any.

    Returns:
        `image/png`, `image/png;cutout`, `application/json` or `application/x-npy`: of those the client
        accepts the one with the highest `q`, among equals the first.

    Raises:
        NotAcceptable: the client accepts none of them.
    """
    candidates: list[tuple[float, str]] = []
    for entry in (accept.strip() or "*/*").split(","):
        name, *parameters = [part.strip().lower() for part in entry.split(";")]
        offer = _OFFERS.get(name)
        quality = _quality(parameters)
        if offer is None or quality <= 0:
            continue
        if name == ALPHA_PNG and "cutout" in parameters:
            offer = CUTOUT_PNG
        candidates.append((quality, offer))
    if not candidates:
        raise NotAcceptable(f"answers are made as {ALPHA_PNG}, {CUTOUT_PNG}, {JSON} or {NPY}")
    return max(candidates, key=lambda candidate: candidate[0])[1]


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
