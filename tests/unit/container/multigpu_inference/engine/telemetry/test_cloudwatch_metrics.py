from __future__ import annotations

import re

from multigpu_inference.engine.telemetry.cloudwatch_metrics import DIMENSIONS, METRICS, NAMESPACE

# CloudWatch's own lists.
AMOUNTS = {f"{scale}{unit}" for scale in ("", "Kilo", "Mega", "Giga", "Tera") for unit in ("Bytes", "Bits")}
AMOUNTS = {amount[0] + amount[1:].lower() for amount in AMOUNTS} | {"Count"}
UNITS = {"Seconds", "Microseconds", "Milliseconds", "Percent", "None"} | AMOUNTS | {f"{amount}/Second" for amount in AMOUNTS}
STATISTICS = {"Average", "Maximum", "Minimum", "SampleCount", "Sum"}
COMPARISONS = {"GreaterThanThreshold", "GreaterThanOrEqualToThreshold", "LessThanThreshold", "LessThanOrEqualToThreshold"}


def test_names_are_there_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names) <= 100


def test_units_are_cloudwatchs() -> None:
    assert {metric.unit for metric in METRICS} <= UNITS


def test_statistics_are_cloudwatchs() -> None:
    for metric in METRICS:
        assert metric.statistic in STATISTICS or re.fullmatch(r"p\d\d?(\.\d+)?", metric.statistic)


def test_alarms_are_such_as_cloudwatch_takes_and_say_what_they_mean() -> None:
    alarms = [metric.alarm for metric in METRICS if metric.alarm is not None]
    assert len(alarms) >= 4
    for alarm in alarms:
        assert alarm.comparison in COMPARISONS
        assert alarm.periods >= 1
        assert alarm.because


def test_queue_age_and_healthy_replicas_are_among_them() -> None:
    assert {"QueueAgeSeconds", "HealthyReplicas"} <= {metric.name for metric in METRICS}


def test_the_namespace_is_not_amazons() -> None:
    assert not NAMESPACE.startswith("AWS/")


def test_a_metric_is_found_without_knowing_the_instance() -> None:
    assert ("EndpointName",) in DIMENSIONS
