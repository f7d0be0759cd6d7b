"""One answered request, as the engine hands it to its telemetry: when what happened to it, and how it ended.

Made once per request on the engine's loop, so it only refers to what is there already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from multigpu_inference.messages import Invocation

# A hop's name such as `stage_1_ms`, when it began and ended (monotonic seconds), and how many items shared it.
HopSpan: TypeAlias = tuple[str, float, float, int]


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """A request that has its answer.

    Attributes:
        invocation: The request as it came.
        status: HTTP status of the answer.
        error: The error's code; None where the request was answered as asked.
        replica: The number of the replica that ran it, as text; "" where it reached none.
        spans: Its hops.
        ended: When the answer was there, monotonic seconds.
        bytes_in: Of its body.
        bytes_out: Of the answer's body.
    """

    invocation: Invocation
    status: int
    error: str | None
    replica: str
    spans: tuple[HopSpan, ...]
    ended: float
    bytes_in: int
    bytes_out: int


def hop_label(name: str) -> str:
    """A hop's name without its unit, as people are shown it: `stage_1` for `stage_1_ms`."""
    return name.removesuffix("_ms")
