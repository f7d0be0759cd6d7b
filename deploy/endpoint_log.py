"""The container's log, as SageMaker hands it to CloudWatch: followed while an endpoint starts, searched when it does not."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from account import Account
from deploy_error import DeployError

# What stands in the line that says why, the surest first.
_CAUSES = (
    re.compile(r'"(start_failed|bad_settings)"'),
    re.compile(r"exec format error|no kernel image|driver version is insufficient|CUDA (error|driver)", re.IGNORECASE),
    re.compile(r"out of memory|OutOfMemoryError|No space left", re.IGNORECASE),
    re.compile(r'"(worker_died|device_lost|engine_ended|front_end_ended)"'),
    re.compile(r"\b\w*(Error|Exception)\b: "),
    re.compile(r"\berror\b", re.IGNORECASE),
)
_OVERLAP_MS = 5000


class EndpointLog:
    """Reads on where it stopped reading."""

    def __init__(self, account: Account, endpoint: str, now: Callable[[], float] = time.time) -> None:
        """Begins with what is logged from now on.

        Args:
            account: To read.
            endpoint: Whose log.
            now: Seconds since 1970.
        """
        self.group = f"/aws/sagemaker/Endpoints/{endpoint}"
        self._account = account
        self._from_ms = int(now() * 1000) - _OVERLAP_MS
        # The events of the overlap that have been told already.
        self._told: dict[str, int] = {}

    def new_lines(self) -> list[str]:
        """What has been logged since the last call; empty where there is no log, or none that may be read."""
        try:
            events = read_events(self._account, self.group, self._from_ms)
        except DeployError:
            return []
        new = [event for event in events if event["eventId"] not in self._told]
        if events:
            # CloudWatch takes in events of several instances late and out of order.
            self._from_ms = max(self._from_ms, max(event["timestamp"] for event in events) - _OVERLAP_MS)
            self._told = {event["eventId"]: event["timestamp"] for event in events if event["timestamp"] >= self._from_ms}
        return [event["message"].rstrip() for event in new]


def read_events(account: Account, group: str, from_ms: int) -> list[dict[str, Any]]:
    """All events of a log group from a time on, by time."""
    try:
        events = list(account.listed("logs", "filter_log_events", "events", logGroupName=group, startTime=max(from_ms, 0)))
    except DeployError as error:
        if "ResourceNotFound" in str(getattr(error.__cause__, "response", "")):
            return []
        raise
    return sorted(events, key=lambda event: event["timestamp"])


def cause(lines: Sequence[str]) -> str | None:
    """The line that most likely says why an endpoint does not serve; None where none does."""
    for pattern in _CAUSES:
        for line in lines:
            if pattern.search(line):
                return plain(line)
    return None


def plain(line: str) -> str:
    """A line of the container's log in words: its events are JSON, other output stays as it is."""
    try:
        event = json.loads(line)
        name, source = event.pop("event"), event.pop("source")
    except (ValueError, KeyError, TypeError, AttributeError):
        return line
    details = [f"{key}={value}" for key, value in event.items() if key not in ("time", "trace") and value != ""]
    return " ".join([f"{source}:", str(name).replace("_", " "), *details])


def is_metrics(line: str) -> bool:
    """Whether a line is for CloudWatch and not for people."""
    return '"_aws"' in line and "CloudWatchMetrics" in line
