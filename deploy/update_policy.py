"""How a new configuration takes over, as SageMaker's deployment guardrails take it. Pure."""

from __future__ import annotations

from typing import Any

import alarms
from deploy_settings import DeploySettings
from serving_settings import ALL_AT_ONCE, CANARY, LINEAR, ROLLING


def update_policy(settings: DeploySettings) -> dict[str, Any] | None:
    """`DeploymentConfig` of an update; None: SageMaker's default, all at once and without alarms."""
    update = settings.update
    step = {"Type": "CAPACITY_PERCENT", "Value": update.percent}
    policy: dict[str, Any] = {}
    # SageMaker ends an update that takes longer, and goes back.
    limit = {"MaximumExecutionTimeoutInSeconds": update_limit_s(settings)}
    if update.strategy == ROLLING:
        policy["RollingUpdatePolicy"] = {"MaximumBatchSize": step, "WaitIntervalInSeconds": update.wait_s, **limit}
    elif update.strategy in (CANARY, LINEAR) or settings.alarms:
        routing: dict[str, Any] = {"Type": update.strategy.upper().replace("-", "_"), "WaitIntervalInSeconds": update.wait_s}
        if update.strategy == CANARY:
            routing["CanarySize"] = step
        if update.strategy == LINEAR:
            routing["LinearStepSize"] = step
        policy["BlueGreenUpdatePolicy"] = {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": update.termination_wait_s,
            **limit,
        }
    if settings.alarms:
        policy["AutoRollbackConfiguration"] = {"Alarms": alarms.rollback_alarms(settings.name)}
    return policy or None


def update_limit_s(settings: DeploySettings) -> int:
    """How long an update may take: machines, download, start and every step, with room. SageMaker allows 8 hours at most."""
    update = settings.update
    steps = {ALL_AT_ONCE: 1, CANARY: 2}.get(update.strategy, -(-100 // update.percent))
    one_fleet = settings.instance.startup_timeout_s + settings.instance.download_timeout_s + 900
    fleets = steps if update.strategy == ROLLING else 1
    return min(28_800, max(600, fleets * one_fleet + steps * update.wait_s + update.termination_wait_s))
