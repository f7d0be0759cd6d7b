"""Who is left where the CPU bounds everything: the prediction cannot tell them apart, so the engine itself decides.

A saturated CPU makes what it runs slower, by caches that go cold and wake-ups that no measurement of a function alone shows.
Large batches and few processes are what helps then, and which of them does is measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from multigpu_inference.config import MAX_FRONT_END_WORKERS
from multigpu_inference.engine.placement import is_list
from multigpu_inference.planner.deployment import Candidate
from multigpu_inference.planner.prediction import Prediction

# Of the best prediction: who is predicted less is not looked at.
_NEAR = 0.85
# Functions take longer in a pool whose cores are busy, so more workers are waited for at a time.
_MORE_WORKERS = 1.4


def finalists(predictions: Sequence[Prediction], recommended: Prediction) -> list[Candidate]:
    """The recommended settings, and of each kind of placement those with the largest batches and the fewest processes."""
    best = max(each.requests_per_second for each in predictions)
    near = [each for each in predictions if each.requests_per_second >= _NEAR * best]
    kinds: dict[str, Prediction] = {}
    for each in near:
        placement = each.deployment.candidate.placement
        kind = "a list" if is_list(placement) else placement
        if kind not in kinds or _thrift(each) > _thrift(kinds[kind]):
            kinds[kind] = each
    found = [recommended.deployment.candidate, *(_with_more_workers(each) for each in kinds.values())]
    return list(dict.fromkeys(found))


def _thrift(prediction: Prediction) -> tuple[int, int, int]:
    deployment = prediction.deployment
    return deployment.max_batch_size, -deployment.capacity.num_replicas, deployment.capacity.pool_workers


def _with_more_workers(prediction: Prediction) -> Candidate:
    workers = round(_MORE_WORKERS * prediction.deployment.capacity.pool_workers)
    return dataclasses.replace(prediction.deployment.candidate, preprocess_workers=min(workers, MAX_FRONT_END_WORKERS))
