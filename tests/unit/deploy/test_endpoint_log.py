from __future__ import annotations

import pytest

from endpoint_log import EndpointLog, cause, is_metrics, plain, read_events
from remedy import remedy
from unit.deploy.deployments import StubbedAccount


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["all is well"], None),
        (["ValueError: x", '{"event": "start_failed", "source": "engine", "message": "m"}'], "engine: start failed message=m"),
        (["exec /opt/venv/bin/python: exec format error", "an error"], "exec /opt/venv/bin/python: exec format error"),
        (["an error", "KeyError: 'a'"], "KeyError: 'a'"),
        (["there was an error"], "there was an error"),
    ],
)
def test_the_line_that_says_most(lines: list[str], expected: str | None) -> None:
    assert cause(lines) == expected


def test_events_are_put_into_words_and_other_lines_left_as_they_are() -> None:
    assert (
        plain('{"event": "worker_died", "source": "engine", "time": "t", "pid": 7, "trace": ""}') == "engine: worker died pid=7"
    )
    assert plain('{"a": 1}') == '{"a": 1}'
    assert plain("[1]") == "[1]"
    assert is_metrics('{"_aws": {"CloudWatchMetrics": []}}')
    assert not is_metrics("text")


@pytest.mark.parametrize(
    ("reason", "line", "expected"),
    [
        ("", "exec format error", "amd64"),
        ("did not pass the ping health check", None, "did not answer /ping with 200 in time"),
        ("did not pass the ping health check", "torch.OutOfMemoryError: CUDA out of memory", "fewer replicas"),
        ("did not pass the ping health check", "engine: bad settings", "correct [environment]"),
        ("CannotStartContainerError", "No space left on device", "instance.volume_gb"),
        ("Failed to download model data from S3", None, "the archive could not be read"),
        ("", None, "create_endpoint.py logs"),
    ],
)
def test_what_to_do_about_it(reason: str, line: str | None, expected: str) -> None:
    assert expected in remedy(reason, line)


def test_new_lines_are_told_once_also_where_they_come_late() -> None:
    stubbed = StubbedAccount()
    logs = stubbed.stub("logs")

    def answer(*events: tuple[str, int]) -> None:
        logs.add_response("filter_log_events", {"events": [{"eventId": m, "timestamp": t, "message": m} for m, t in events]})

    answer(("a", 100_000))
    answer(("a", 100_000), ("c", 102_000))
    answer(("b", 99_000), ("a", 100_000), ("c", 102_000))
    log = EndpointLog(stubbed.account, "demo", now=lambda: 90.0)
    assert [log.new_lines(), log.new_lines(), log.new_lines()] == [["a"], ["c"], ["b"]]


def test_a_log_that_is_not_there_or_may_not_be_read_is_empty() -> None:
    stubbed = StubbedAccount()
    logs = stubbed.stub("logs")
    logs.add_client_error("filter_log_events", "ResourceNotFoundException", "no group")
    assert read_events(stubbed.account, "group", 0) == []
    logs.add_client_error("filter_log_events", "AccessDeniedException", "no")
    assert EndpointLog(stubbed.account, "demo").new_lines() == []
