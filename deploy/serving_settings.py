"""How a deployment behaves while it serves: the tables `[autoscaling]`, `[update]` and `[alarms]` of `settings.toml`."""

from __future__ import annotations

from dataclasses import dataclass

from deploy_error import Invalid
from settings_table import SettingsTable

ALL_AT_ONCE, CANARY, LINEAR, ROLLING = "all-at-once", "canary", "linear", "rolling"
INVOCATIONS, CONCURRENCY = "invocations", "concurrency"


@dataclass(frozen=True, slots=True)
class AutoscalingSettings:
    """How the number of instances follows the load.

    Attributes:
        min_count, max_count: Instances, at least and at most.
        metric: `invocations` a minute and instance, or `concurrency`: requests in flight, seen every 10 s.
        target: Of that metric for each instance.
        scale_in_s, scale_out_s: Seconds to wait after a change.
    """

    min_count: int
    max_count: int
    metric: str
    target: float
    scale_in_s: int
    scale_out_s: int


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """How a new configuration takes over.

    Attributes:
        strategy: all-at-once, canary, linear, rolling.
        percent: Of the capacity: the canary's, a linear step's, a rolling batch's.
        wait_s: Between two steps.
        termination_wait_s: How long the old fleet is kept.
        wait_limit_s: For an apply to wait for the endpoint; None: worked out from the other limits.
    """

    strategy: str
    percent: int
    wait_s: int
    termination_wait_s: int
    wait_limit_s: int | None


@dataclass(frozen=True, slots=True)
class AlarmSettings:
    """Alarms that undo an update while it is under way, and tell somebody at any time.

    Attributes:
        server_errors: 5xx answers a minute.
        p99_s: Seconds that the slowest hundredth takes in the container.
        device_errors: Worker processes lost in a minute, counted from the container's log: lost GPUs, crashes, memory.
        notify: ARN of an SNS topic; empty: nobody is told.
    """

    server_errors: int
    p99_s: float
    device_errors: int
    notify: str


def read_autoscaling(table: SettingsTable) -> AutoscalingSettings:
    """Read `[autoscaling]`."""
    settings = AutoscalingSettings(
        min_count=table.integer("min", 1, 1, 1000),
        max_count=table.integer("max", 2, 1, 1000),
        metric=table.choice("metric", CONCURRENCY, (INVOCATIONS, CONCURRENCY)),
        target=table.number("target", 8.0, 0.01, 1e6),
        scale_in_s=table.integer("scale_in_s", 300, 0, 86_400),
        scale_out_s=table.integer("scale_out_s", 60, 0, 86_400),
    )
    table.refuse_unknown()
    return settings


def read_update(table: SettingsTable) -> UpdateSettings:
    """Read `[update]`."""
    settings = UpdateSettings(
        strategy=table.choice("strategy", ALL_AT_ONCE, (ALL_AT_ONCE, CANARY, LINEAR, ROLLING)),
        percent=table.integer("percent", 50, 1, 100),
        wait_s=table.integer("wait_s", 300, 0, 3600),
        termination_wait_s=table.integer("termination_wait_s", 0, 0, 3600),
        wait_limit_s=table.optional_integer("wait_limit_s", 60, 86_400),
    )
    table.refuse_unknown()
    low = {CANARY: 1, LINEAR: 10, ROLLING: 5}.get(settings.strategy)
    if low is not None and not low <= settings.percent <= 50:
        raise Invalid(f"update.percent={settings.percent}: allowed with {settings.strategy} is {low} to 50")
    return settings


def read_alarms(table: SettingsTable) -> AlarmSettings:
    """Read `[alarms]`."""
    settings = AlarmSettings(
        server_errors=table.integer("server_errors", 5, 0, 1_000_000),
        p99_s=table.number("p99_s", 30.0, 0.001, 60.0),
        device_errors=table.integer("device_errors", 2, 0, 1_000_000),
        notify=table.text("notify", ""),
    )
    table.refuse_unknown()
    return settings
