"""What CloudWatch is told, as a list: the log lines are made from it, and a deployment's dashboard and alarms.

Imports nothing, so that a deployment on a machine without the container's packages can read it.
"""

from __future__ import annotations

from dataclasses import dataclass

NAMESPACE = "MultiGPU/Inference"
# A metric is found by the endpoint alone, over all its instances, and by endpoint and instance.
ENDPOINT, HOST = "EndpointName", "Host"
DIMENSIONS = ((ENDPOINT,), (ENDPOINT, HOST))
PERIOD_S = 60


@dataclass(frozen=True, slots=True)
class Alarm:
    """When somebody is to be told.

    Attributes:
        comparison: CloudWatch's `ComparisonOperator`.
        threshold: In the metric's unit.
        periods: For how many minutes in a row.
        because: What it means.
    """

    comparison: str
    threshold: float
    periods: int
    because: str


@dataclass(frozen=True, slots=True)
class CloudWatchMetric:
    """One metric.

    Attributes:
        name: In CloudWatch.
        unit: One of CloudWatch's units.
        statistic: The one that says most, over instances and minutes; a percentile such as `p99` too.
        meaning: For the dashboard.
        alarm: On that statistic; None where there is nothing to be told.
    """

    name: str
    unit: str
    statistic: str
    meaning: str
    alarm: Alarm | None = None


ABOVE, BELOW = "GreaterThanThreshold", "LessThanThreshold"

METRICS = (
    CloudWatchMetric(
        "QueueAgeSeconds",
        "Seconds",
        "Maximum",
        "How long the first request in the queue has waited to be admitted",
        Alarm(ABOVE, 5.0, 3, "requests wait: the endpoint needs more instances, or its devices are held up"),
    ),
    CloudWatchMetric("QueueDepth", "Count", "Maximum", "Requests that wait to be admitted"),
    CloudWatchMetric(
        "HealthyReplicas",
        "Count",
        "Minimum",
        "Replicas that can take requests",
        Alarm(BELOW, 1.0, 3, "an instance has no replica that can answer"),
    ),
    CloudWatchMetric("InFlight", "Count", "Average", "Requests without an answer, waiting ones included"),
    CloudWatchMetric("Requests", "Count", "Sum", "Requests answered, refused ones included"),
    CloudWatchMetric(
        "Errors5xx",
        "Count",
        "Sum",
        "Requests answered with a status of 500 or more, refused ones included",
        Alarm(ABOVE, 5.0, 3, "the script fails, workers die, or requests are refused: the log says which"),
    ),
    CloudWatchMetric(
        "Refused",
        "Count",
        "Sum",
        "Requests refused before anybody worked on them",
        Alarm(ABOVE, 0.0, 5, "more traffic comes than the instances hold"),
    ),
    CloudWatchMetric(
        "RequestSeconds",
        "Seconds",
        "p99",
        "From a request's arrival to its answer",
        Alarm(ABOVE, 30.0, 5, "answers come close to the 60 seconds after which SageMaker gives up"),
    ),
    CloudWatchMetric("DeviceBusyPercent", "Percent", "Average", "Share of the time in which a device worked on a batch"),
    CloudWatchMetric(
        "Restarts",
        "Count",
        "Sum",
        "Worker processes that were replaced",
        Alarm(ABOVE, 5.0, 3, "worker processes die again and again: the log's worker_died lines say why"),
    ),
)
