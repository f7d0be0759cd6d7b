"""Prediction beside measurement: the engine is started with the recommended settings, and with its defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multigpu_inference.config import Settings
from multigpu_inference.planner.deployment import Deployment
from multigpu_inference.planner.engine_run import Measured, measure_engine
from multigpu_inference.planner.prediction import Prediction
from multigpu_inference.planner.sample import Sample

SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Verified:
    """One deployment.

    Attributes:
        name: `recommended` or `defaults`.
        predicted: What was said.
        measured: What it did.
    """

    name: str
    predicted: Prediction
    measured: Measured


async def measure_deployment(
    deployment: Deployment, environ: Mapping[str, str], sample: Sample, seconds: float = SECONDS
) -> Measured:
    """Start the engine with a deployment's settings and measure it.

    Args:
        deployment: Its settings replace those of the environment.
        environ: The other variables: this process's and those of the model's folder.
        sample: What is sent.
        seconds: How long the saturated engine is measured at least.
    """
    chosen = {**environ, **deployment.candidate.environment()}
    # More may wait than are admitted: no request of this loop is to be refused.
    chosen.setdefault("MULTIGPU_MAX_QUEUE_SIZE", "1000")
    return await measure_engine(chosen, Settings.from_env(chosen), sample, deployment.in_flight, seconds)
