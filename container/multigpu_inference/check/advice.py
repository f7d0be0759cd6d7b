"""What to change to gain more, from what a check has found."""

from __future__ import annotations

import math
from collections.abc import Iterator

from multigpu_inference.check.checked import Checked
from multigpu_inference.messages import INPUT_FN, OUTPUT_FN, TRANSFORM_FN

HOPS = {INPUT_FN: "preprocess_ms", OUTPUT_FN: "postprocess_ms"}
# Milliseconds on the replica's thread that nobody would miss.
_NOTHING_MS = 1.0


def advice(checked: Checked) -> Iterator[str]:
    """Sentences, the one that gains most first."""
    yield from _of_the_whole(checked)
    if checked.info.sample is None:
        yield (
            "add sample_input(), which returns a body and its content type: each replica is then warmed with it before it gets "
            "a request, and where functions run is found out at the start and not with the first request"
        )
    if checked.answered is not None and checked.works:
        yield from _of_the_hops(checked)


def _of_the_whole(checked: Checked) -> Iterator[str]:
    if TRANSFORM_FN in checked.info.functions:
        yield (
            "split transform_fn into input_fn, predict_fn and output_fn: the first and the last can then run in CPU processes, "
            "while the device works on the next request"
        )
    if checked.info.import_error is not None:
        yield (
            f"let the script be imported where no GPU is visible ({checked.info.import_error}): until then nothing of it runs "
            "in CPU processes"
        )
    for function, place in checked.places.items():
        if place.runs_in == "replica" and place.because is not None:
            cost = checked.answered.milliseconds.get(HOPS[function], 0.0) if checked.answered is not None else 0.0
            if cost >= _NOTHING_MS:
                yield f"{_remedy(function, place.because)}: the device now waits {cost:.1f} ms of each request for it"
            else:
                yield f"{_remedy(function, place.because)}; it is quick ({cost:.1f} ms), so there is little to gain"


def _remedy(function: str, because: str) -> str:
    if "global" in because:
        return f"free {function} from globals ({because}): what model_fn makes, predict_fn can be given with the model"
    if "pickle" in because:
        return f"let {function} be handed over ({because}): return tensors, arrays, or plain Python objects"
    return f"let {function} run in a CPU process ({because})"


def _of_the_hops(checked: Checked) -> Iterator[str]:
    assert checked.answered is not None
    hops = checked.answered.milliseconds
    replica_ms = max((value for name, value in hops.items() if name.startswith(("stage_", "predict"))), default=0.0)
    pool_ms = sum(hops.get(HOPS[name], 0.0) for name, place in checked.places.items() if place.runs_in == "pool")
    replicas = len(checked.placement)
    if pool_ms > _NOTHING_MS and pool_ms / checked.pool_workers > replica_ms / replicas:
        needed = math.ceil(pool_ms * replicas / max(replica_ms, 0.1))
        yield (
            f"{checked.pool_workers} CPU processes need {pool_ms:.1f} ms for each request, and keep {replicas} replicas "
            f"waiting that need {replica_ms:.1f} ms: {needed} processes would not (MULTIGPU_PREPROCESS_WORKERS, on a machine "
            "with as many cores), or make input_fn do less"
        )
    if not checked.has_stages and TRANSFORM_FN not in checked.info.functions and replica_ms > _NOTHING_MS:
        yield (
            "a replica works on one request at a time: with the model given as stages (README, 'Two models, two devices') "
            "batches form by themselves, copies overlap with work, and a second model has a device of its own"
        )
