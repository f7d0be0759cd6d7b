"""The alarms of a deployment as requests: those that undo an update, and what the container itself asks to be told.

5xx answers and latency are SageMaker's metrics. Lost devices are the container's: it writes them to its log as CloudWatch
metrics (`multigpu_inference/engine/telemetry/cloudwatch_metrics.py`), from which an alarm can be made as from any other.
"""

from __future__ import annotations

from typing import Any

import source_paths  # noqa: F401
from multigpu_inference.engine.telemetry.cloudwatch_metrics import ENDPOINT, METRICS, NAMESPACE, PERIOD_S
from serving_settings import AlarmSettings

DEVICE_ERRORS = "Restarts"


def alarm_requests(
    endpoint: str, variant: str, settings: AlarmSettings, tags: list[dict[str, str]]
) -> tuple[dict[str, Any], ...]:
    """The requests of `put_metric_alarm`.

    Args:
        endpoint: Whose alarms these are: their names begin with its name and a slash.
        variant: What is watched.
        settings: From which value on.
        tags: Put on each.

    Returns:
        Those that undo an update (`rollback_alarms` names them), then the container's own for any other time.
    """
    sagemaker = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
    own = [{"Name": ENDPOINT, "Value": endpoint}]
    errors = {"MetricName": "Invocation5XXErrors", "Namespace": "AWS/SageMaker", "Dimensions": sagemaker, "Statistic": "Sum"}
    # SageMaker counts latency in microseconds.
    latency = {"MetricName": "ModelLatency", "Namespace": "AWS/SageMaker", "Dimensions": sagemaker, "ExtendedStatistic": "p99"}
    devices = {"MetricName": DEVICE_ERRORS, "Namespace": NAMESPACE, "Dimensions": own, "Statistic": "Sum"}
    alarms = [
        _alarm("server-errors", "answers of 500 and more", errors, settings.server_errors, 1),
        _alarm("p99", "the slowest hundredth of the answers", latency, settings.p99_s * 1e6, 2),
        _alarm("device-errors", "worker processes lost: GPUs, crashes, memory", devices, settings.device_errors, 1),
    ]
    for metric in METRICS:
        # What has an alarm of the deployment's own above is not told twice.
        if metric.alarm is None or metric.name in (DEVICE_ERRORS, "Errors5xx", "RequestSeconds"):
            continue
        statistic = {"ExtendedStatistic" if metric.statistic.startswith("p") else "Statistic": metric.statistic}
        what = {"MetricName": metric.name, "Namespace": NAMESPACE, "Dimensions": own, **statistic}
        alarm = _alarm(metric.name, metric.alarm.because, what, metric.alarm.threshold, metric.alarm.periods)
        alarms.append(alarm | {"ComparisonOperator": metric.alarm.comparison})
    # An empty list too: it takes away whom an alarm told before.
    notify = {"AlarmActions": [settings.notify] if settings.notify else []}
    return tuple(alarm | notify | {"AlarmName": f"{endpoint}/{alarm['AlarmName']}", "Tags": tags} for alarm in alarms)


def rollback_alarms(endpoint: str) -> list[dict[str, str]]:
    """The names of those that undo an update, as `AutoRollbackConfiguration` takes them."""
    return [{"AlarmName": f"{endpoint}/{name}"} for name in ("server-errors", "p99", "device-errors")]


def _alarm(name: str, meaning: str, metric: dict[str, Any], threshold: float, periods: int) -> dict[str, Any]:
    return {
        "AlarmName": name,
        "AlarmDescription": meaning,
        **metric,
        "Period": PERIOD_S,
        "EvaluationPeriods": periods,
        "Threshold": float(threshold),
        "ComparisonOperator": "GreaterThanThreshold",
        # No traffic is no error, and an endpoint that is being made has none.
        "TreatMissingData": "notBreaching",
    }
