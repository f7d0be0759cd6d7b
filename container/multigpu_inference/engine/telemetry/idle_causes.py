"""Why a device had nothing to do: each moment before a batch is charged to what that batch was doing meanwhile.

    arrived      preprocess        copy          stage 1                stage 2
    ───│───────────██████──────────███───────────███████────────────────███████
     no_traffic  │ decode │ batch  │copy│ batch │ other_ │ batch wait  │ busy      (the device of stage 2)
               pool wait    wait          wait    stage

A device that waits waits for the request with which its next batch begins, so that request's way says what for. Pure
functions; `device_time` has the intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from multigpu_inference.engine.telemetry.finished_request import HopSpan

BUSY = "busy"
NO_TRAFFIC = "no_traffic"
DECODE = "decode"
ENCODE = "encode"
FETCH = "fetch"
COPY = "copy"
BATCH_WAIT = "batch_wait"
OTHER_STAGE = "other_stage"
REPLACING = "replacing"
IDLE_CAUSES = (NO_TRAFFIC, FETCH, DECODE, ENCODE, COPY, BATCH_WAIT, OTHER_STAGE, REPLACING)

# For a worker of the pool, which is busy with other requests' pictures: those that it decodes, and those that it encodes.
_POOL_WAIT = "pool_wait"
# By hop: what a request waits for that has not begun it yet, and what it is charged to itself.
_BEFORE = {"preprocess_ms": _POOL_WAIT, "postprocess_ms": _POOL_WAIT, "fetch_ms": FETCH}
_DURING = {"preprocess_ms": DECODE, "postprocess_ms": ENCODE, "fetch_ms": FETCH, "copy_ms": COPY}
_BEGAN = itemgetter(1)


class Timeline(NamedTuple):
    """What a request did before its batch began.

    Attributes:
        ready: When the batch could have begun, for all that this request had still to do.
        arrived: When it came to the container.
        spans: Its hops, those after the batch too.
    """

    ready: float
    arrived: float
    spans: tuple[HopSpan, ...]


def idle_causes(
    began: float,
    ended: float,
    timeline: Timeline | None,
    decode_share: float,
    outages: Sequence[tuple[float, float]] = (),
) -> dict[str, float]:
    """Charge the time in which a device had nothing to do.

    Args:
        began: When its last batch ended.
        ended: When the next one began, or until when it is known that none did.
        timeline: Of the request with which that one began; None where all requests that may still come to the device
            arrived after `ended`.
        decode_share: How much of the pool's work is decoding, 0 to 1; the rest is encoding.
        outages: When a replica of the device was being replaced, whatever else was the case; in order, not overlapping.

    Returns:
        Seconds by cause, together `ended - began`.
    """
    seconds: dict[str, float] = {}
    for cause, since, until in _segments(ended, timeline):
        low, high = max(began, since), min(ended, until)
        if high <= low:
            continue
        replacing = sum(max(0.0, min(high, up) - max(low, down)) for down, up in outages)
        left = max(0.0, high - low - replacing)
        charges = [(REPLACING, replacing)]
        if cause == _POOL_WAIT:
            charges += [(DECODE, left * decode_share), (ENCODE, left * (1.0 - decode_share))]
        else:
            charges += [(cause, left)]
        for charged, length in charges:
            if length:
                seconds[charged] = seconds.get(charged, 0.0) + length
    return seconds


def _segments(until: float, timeline: Timeline | None) -> Iterator[tuple[str, float, float]]:
    """What a request did, piece by piece without a hole, from the beginning of time to `until`."""
    if timeline is None:
        yield NO_TRAFFIC, float("-inf"), until
        return
    yield NO_TRAFFIC, float("-inf"), timeline.arrived
    reached = timeline.arrived
    for name, began, ended, _ in sorted(timeline.spans, key=_BEGAN):
        yield _BEFORE.get(name, BATCH_WAIT), reached, began
        if began >= until:
            return
        yield _DURING.get(name, OTHER_STAGE), max(reached, began), ended
        reached = max(reached, ended)
    yield BATCH_WAIT, reached, until
