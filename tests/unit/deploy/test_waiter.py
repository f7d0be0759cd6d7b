from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from deploy_error import Denied, DeployError, NoCapacity, RolledBack, TimedOut, Unhealthy
from deploy_progress import DeployProgress
from unit.deploy.deployments import StubbedAccount
from waiter import EndpointWaiter, failure

GROUP = "/aws/sagemaker/Endpoints/demo"
BUSY = ("busy", "")


class Waiting:
    """A waiter over answers that are written down: statuses, each with its configuration."""

    def __init__(self, *statuses: tuple[str, str] | None, reason: str = "", lines: tuple[str, ...] = ()) -> None:
        self.stubbed = StubbedAccount()
        sagemaker, logs = self.stubbed.stub("sagemaker"), self.stubbed.stub("logs")
        for status in statuses:
            if status is None:
                sagemaker.add_client_error("describe_endpoint", "ValidationException", "Could not find endpoint")
            elif status == BUSY:
                sagemaker.add_client_error("describe_endpoint", "ThrottlingException", "Rate exceeded")
            else:
                sagemaker.add_response("describe_endpoint", self._described(*status, reason))
        for index in range(len(statuses) + 1):
            events = [
                {"eventId": f"{number}", "timestamp": 4_000_000_000_000 + number, "message": line}
                for number, line in enumerate(lines[: index + 1])
            ]
            logs.add_response("filter_log_events", {"events": events})
        self.out = io.StringIO()
        progress = DeployProgress(Console(file=self.out, soft_wrap=True), self.stubbed.clock)
        self.waiter = EndpointWaiter(self.stubbed.account, progress, "demo")

    @staticmethod
    def _described(status: str, config: str, reason: str) -> dict[str, Any]:
        return {
            "EndpointName": "demo",
            "EndpointArn": "arn:aws:sagemaker:eu-central-1:123456789012:endpoint/demo",
            "EndpointConfigName": config,
            "EndpointStatus": status,
            "CreationTime": 0,
            "LastModifiedTime": 0,
            "ProductionVariants": [{"VariantName": "main", "CurrentInstanceCount": 1, "DesiredInstanceCount": 2}],
            **({"FailureReason": reason} if reason else {}),
        }

    def for_new(self, limit_s: float = 3600) -> Any:
        return self.waiter.until_serving("new", limit_s)


def test_in_service_with_the_configuration_that_was_asked_for() -> None:
    waiting = Waiting(("Creating", "new"), ("Creating", "new"), ("InService", "new"))
    assert waiting.for_new().config == "new"
    assert waiting.stubbed.slept == [10.0, 10.0]
    assert "endpoint Creating (main 1/2)" in waiting.out.getvalue()


def test_what_aws_describes_for_a_moment_from_before_the_update_is_no_rollback() -> None:
    waiting = Waiting(("InService", "old"), ("InService", "old"), ("Updating", "old"), ("InService", "new"))
    assert waiting.for_new().config == "new"


@pytest.mark.parametrize("way", [["Updating"], ["Updating", "RollingBack"]])
def test_in_service_with_the_old_configuration_is_a_rollback(way: list[str]) -> None:
    waiting = Waiting(*[(status, "old") for status in way], ("InService", "old"), reason="alarm demo/p99 went off")
    with pytest.raises(
        RolledBack, match="endpoint demo is InService with old as before; SageMaker: alarm demo/p99 went off; an alarm"
    ):
        waiting.for_new()


def test_an_update_that_never_begins_is_not_waited_for_to_the_end() -> None:
    waiting = Waiting(*[("InService", "old")] * 11)
    with pytest.raises(RolledBack, match="SageMaker gives no reason"):
        waiting.for_new()
    assert sum(waiting.stubbed.slept) == 100


def test_a_rollback_that_failed_ends_at_once() -> None:
    with pytest.raises(RolledBack, match="update and rollback failed: a mix of old and new serves"):
        Waiting(("Updating", "old"), ("UpdateRollbackFailed", "old")).for_new()


def test_a_failure_is_told_with_the_reason_the_line_of_the_log_and_the_remedy() -> None:
    lines = ('{"event": "start", "source": "supervisor"}', "RuntimeError: CUDA driver version is insufficient", "bye")
    waiting = Waiting(("Creating", "new"), ("Creating", "new"), ("Failed", "new"), reason="did not pass the ping", lines=lines)
    with pytest.raises(Unhealthy) as raised:
        waiting.for_new()
    assert str(raised.value) == (
        "endpoint demo failed; SageMaker: did not pass the ping; log: RuntimeError: CUDA driver version is insufficient; "
        "the image's CUDA does not suit the instance's driver or GPUs: set image.cuda to what the image has, or build another"
    )
    shown = waiting.out.getvalue()
    assert "│ supervisor: start" in shown
    assert shown.count("CUDA driver") == 1, "a line is shown once"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error", NoCapacity),
        ("ResourceLimitExceeded: the account-level service limit is 0", Denied),
        ("something else", Unhealthy),
    ],
)
def test_the_class_follows_from_the_reason(reason: str, kind: type[DeployError]) -> None:
    assert type(failure(Unhealthy, "endpoint demo failed", reason, [])) is kind


def test_an_endpoint_that_is_gone_is_said() -> None:
    with pytest.raises(Unhealthy, match="endpoint demo is gone"):
        Waiting(("Creating", "new"), None).for_new()


def test_the_limit() -> None:
    waiting = Waiting(*[("Creating", "new")] * 5)
    with pytest.raises(TimedOut, match="is Creating after 40 s: run the command again to wait on"):
        waiting.for_new(limit_s=30)


def test_an_endpoint_that_is_not_described_yet_is_not_gone() -> None:
    assert Waiting(None, ("Creating", "new"), ("InService", "new")).for_new().config == "new"
    with pytest.raises(Unhealthy, match="endpoint demo is gone"):
        Waiting(*[None] * 11).for_new()


def test_a_rollback_that_failed_before_this_update_is_not_taken_for_this_ones() -> None:
    waiting = Waiting(("UpdateRollbackFailed", "old"), ("Updating", "old"), ("InService", "new"))
    assert waiting.for_new().config == "new"


def test_an_aws_that_is_busy_is_waited_out() -> None:
    waiting = Waiting(("Creating", "new"), BUSY, BUSY, ("InService", "new"))
    assert waiting.for_new().config == "new"
    assert "Rate exceeded" in waiting.out.getvalue()
    with pytest.raises(TimedOut, match="Rate exceeded"):
        Waiting(*[BUSY] * 5).for_new(limit_s=30)


def test_until_gone() -> None:
    Waiting(("InService", "new"), ("Deleting", "new"), None).waiter.until_gone(100)
    with pytest.raises(Unhealthy, match="endpoint demo could not be deleted; SageMaker: its network interface is in use"):
        Waiting(*[("Failed", "new")] * 11, reason="its network interface is in use").waiter.until_gone(1000)
    with pytest.raises(TimedOut, match="is InService after 40 s"):
        Waiting(*[("InService", "new")] * 5).waiter.until_gone(30)


def test_until_settled() -> None:
    settled = Waiting(("Deleting", "new"), None).waiter.until_settled(100)
    assert settled is None
    state = Waiting(("Updating", "old"), ("InService", "new")).waiter.until_settled(100)
    assert state is not None
    assert state.config == "new"
    with pytest.raises(TimedOut):
        Waiting(*[("Updating", "old")] * 4).waiter.until_settled(20)
