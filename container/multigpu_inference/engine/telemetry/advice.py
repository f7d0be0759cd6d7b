"""One sentence on what to change so that a device has less idle time: a pure function of where its time went.

Shown on the page, in the log and in the benchmark's report, so it stands by itself: the figure, what it means, which setting.
"""

from __future__ import annotations

from collections.abc import Mapping

from multigpu_inference.engine.telemetry.idle_causes import (
    BATCH_WAIT,
    BUSY,
    COPY,
    DECODE,
    ENCODE,
    FETCH,
    IDLE_CAUSES,
    NO_TRAFFIC,
    OTHER_STAGE,
    REPLACING,
)

# Above this the rest is the time between one batch and the next.
_BUSY_ENOUGH = 0.9
# Less than this says nothing.
_LEAST_SECONDS = 1.0
# Decoding and encoding, which share their processes and their remedy.
_POOL = "pool"

_TEXTS = {
    NO_TRAFFIC: "no request for it was there: more traffic would use it, or fewer replicas (MULTIGPU_NUM_REPLICAS) would do",
    FETCH: "its next request was still being fetched by fetch_fn: a source that answers sooner, or more requests at a time, "
    "would use it",
    COPY: "its next batch was still being copied to it: with one more replica on each device (MULTIGPU_NUM_REPLICAS) one "
    "computes while another copies",
    OTHER_STAGE: "its next batch was still in another stage: MULTIGPU_PLACEMENT=same gives each device every stage, and a "
    "higher MULTIGPU_MAX_BATCH_SIZE lets more requests overlap",
    REPLACING: "a replica of it was being replaced, or was given up: the log's worker_died lines say why",
}
_WAITS_ON_PURPOSE = "a request was ready and waited for its batch to grow: lower MULTIGPU_MAX_BATCH_DELAY_MS (now {delay:g})"
_WAITS_FOR_ROOM = (
    "a request was ready and waited for its turn in a replica: raise MULTIGPU_MAX_BATCH_SIZE, which lets more requests into "
    "each replica, or MULTIGPU_NUM_REPLICAS"
)
_MORE_WORKERS = (
    "raise MULTIGPU_PREPROCESS_WORKERS (now {workers}), or where all cores are busy already take an instance with more of them"
)
_NO_POOL = (
    "it runs on the replica's own thread: the log's function_placed line says why it cannot run in the pool, and what to change"
)


def advice(name: str, seconds: Mapping[str, float], *, pool_workers: int, max_batch_delay_ms: float = 0.0) -> str:
    """What to change, in one sentence.

    Args:
        name: What it is about: a device such as `cuda:0`, or `the average device`.
        seconds: Where its time went: `busy` and causes of idleness, some may be left out.
        pool_workers: Processes of the pool; 0 where the script's functions run in the replicas.
        max_batch_delay_ms: `MULTIGPU_MAX_BATCH_DELAY_MS`.
    """
    elapsed = sum(seconds.values())
    if elapsed < _LEAST_SECONDS:
        return f"{name}: nothing to say yet."
    busy = seconds.get(BUSY, 0.0) / elapsed
    if busy > _BUSY_ENOUGH:
        return f"{name} was busy for {_percent(busy)} of the time: nothing to gain; more work needs more or faster devices."
    decode, encode = seconds.get(DECODE, 0.0), seconds.get(ENCODE, 0.0)
    causes = {_POOL: decode + encode} | {c: seconds.get(c, 0.0) for c in IDLE_CAUSES if c not in (DECODE, ENCODE)}
    cause = max(causes, key=lambda cause: causes[cause])
    text = _TEXTS.get(cause, "")
    if cause == _POOL:
        parts = f"input_fn {_percent(decode / elapsed)}, output_fn {_percent(encode / elapsed)}"
        remedy = _MORE_WORKERS.format(workers=pool_workers) if pool_workers else _NO_POOL
        text = f"its next request was in input_fn or waited for a place there ({parts}): {remedy}"
    if cause == BATCH_WAIT:
        text = _WAITS_ON_PURPOSE.format(delay=max_batch_delay_ms) if max_batch_delay_ms > 0 else _WAITS_FOR_ROOM
    return f"{name} was busy for {_percent(busy)} of the time; for {_percent(causes[cause] / elapsed)} {text}."


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
