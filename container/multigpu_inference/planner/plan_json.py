"""The plan for machines: one JSON object."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from multigpu_inference.planner.deployment import Deployment
from multigpu_inference.planner.machine import Machine
from multigpu_inference.planner.prediction import Plan, Prediction
from multigpu_inference.planner.profile import Profile
from multigpu_inference.planner.sample import Sample
from multigpu_inference.planner.verification import Verified


def as_json(
    plan: Plan, profile: Profile, sample: Sample, machine: Machine, settings: Sequence[str], verified: Sequence[Verified]
) -> dict[str, Any]:
    """Everything that the tables have, and all candidates."""
    replicas = [
        {"kinds": kinds, "threads": threads, **dataclasses.asdict(replica)}
        for (kinds, threads), replica in profile.replicas.items()
    ]
    return {
        "machine": dataclasses.asdict(machine),
        "sample": {"source": sample.source, "content_type": sample.content_type, "bytes": len(sample.body)},
        "measured": {
            "input_fn": profile.input and dataclasses.asdict(profile.input),
            "output_fn": profile.output and dataclasses.asdict(profile.output),
            "replicas": replicas,
            "prediction_bytes": profile.prediction_bytes,
            "overhead": dataclasses.asdict(profile.overhead),
        },
        "recommended": _prediction(plan.recommended),
        "defaults": plan.default and _prediction(plan.default),
        "settings": dict(line.split("=", 1) for line in settings),
        "candidates": [_prediction(each) for each in plan.predictions],
        "dropped": [{**_deployment(deployment), "because": reason} for deployment, reason in plan.dropped],
        "verified": [_verified(each) for each in verified],
    }


def _deployment(deployment: Deployment) -> dict[str, Any]:
    return {
        "environment": deployment.candidate.environment(),
        "placement": deployment.placement,
        "num_replicas": deployment.capacity.num_replicas,
        "max_batch_size": deployment.max_batch_size,
        "preprocess_workers": deployment.capacity.pool_workers,
        "in_flight": deployment.in_flight,
    }


def _prediction(prediction: Prediction) -> dict[str, Any]:
    return {
        **_deployment(prediction.deployment),
        "requests_per_second": prediction.requests_per_second,
        "lone_ms": prediction.lone_ms,
        "saturated_ms": prediction.saturated.latency_ms,
        "bound_by": prediction.bound_by,
        "memory_bytes": prediction.memory,
        "utilisation": prediction.saturated.utilisation,
        "batch_sizes": prediction.saturated.batch_sizes,
    }


def _verified(verified: Verified) -> dict[str, Any]:
    measured = verified.measured
    return {
        "name": verified.name,
        "requests_per_second": measured.requests_per_second,
        "predicted_requests_per_second": verified.predicted.requests_per_second,
        "lone_ms": measured.lone_ms,
        "predicted_lone_ms": verified.predicted.lone_ms,
        "saturated_ms": measured.saturated.latency_ms(),
        "errors": measured.saturated.errors,
    }
