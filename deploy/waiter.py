"""Waits for an endpoint: until it serves the configuration that was asked for, and not until it serves something.

boto3's own waiter also ends well after a rollback to the old configuration, polls an update whose rollback failed to the
end, and gives up after an hour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from account import CAPACITY, Account
from account_reading import read_endpoint
from account_state import DELETING, FAILED, IN_SERVICE, MOVING, ROLLBACK_FAILED, EndpointState
from deploy_error import Denied, DeployError, NoCapacity, RolledBack, TimedOut, Unhealthy
from deploy_progress import DeployProgress
from endpoint_log import EndpointLog, cause, is_metrics, plain
from remedy import remedy

_POLL_S = 10.0
# AWS may for a moment still describe what was before.
_GRACE_S = 90.0
_LINES_KEPT = 2000
_QUOTA = ("ResourceLimitExceeded", "service limit", "service quota", "account-level")


class EndpointWaiter:
    """Waits for one endpoint, and tells what it sees meanwhile."""

    def __init__(self, account: Account, progress: DeployProgress, name: str) -> None:
        """The log is followed from now on.

        Args:
            account: To read; its clock and its sleep are used.
            progress: Is told.
            name: The endpoint's.
        """
        self._account = account
        self._progress = progress
        self._name = name
        self._log = EndpointLog(account, name)
        self._lines: list[str] = []

    def until_serving(self, config: str, limit_s: float) -> EndpointState:
        """Wait until it is in service with a configuration.

        Raises:
            NoCapacity: AWS has no such instances.
            Denied: a quota is in the way.
            Unhealthy: it failed, or is gone.
            RolledBack: it serves another configuration, or a mix of both.
            TimedOut: after `limit_s` seconds.
        """
        moved = False
        for state, waited in self._looks(limit_s):
            self._follow_log()
            young = not moved and waited <= _GRACE_S
            if state is None and young:
                continue
            if state is None or state.status == DELETING:
                raise Unhealthy(f"endpoint {self._name} is gone: somebody has deleted it; run the command again")
            self._progress.state(_describe(state))
            moved = moved or state.status in MOVING
            if state.status == IN_SERVICE and state.config == config:
                return state
            if state.status == FAILED:
                raise self._failure(Unhealthy, f"endpoint {self._name} failed", state.reason)
            if state.status == ROLLBACK_FAILED and not young:
                text = f"endpoint {self._name}: update and rollback failed: a mix of {state.config} and {config} serves"
                raise self._failure(RolledBack, text, state.reason)
            if state.status not in MOVING and not young:
                text = f"the update to {config} failed: endpoint {self._name} is {state.status} with {state.config} as before"
                raise self._failure(RolledBack, text, state.reason)
        raise AssertionError("to look goes on until something is returned or raised")

    def until_settled(self, limit_s: float) -> EndpointState | None:
        """Wait until it is on its way nowhere; None: it is gone.

        Raises:
            TimedOut: after `limit_s` seconds.
        """
        for state, _ in self._looks(limit_s):
            if state is None or state.status not in MOVING:
                return state
            self._progress.state(_describe(state))
        raise AssertionError("to look goes on until something is returned or raised")

    def until_gone(self, limit_s: float) -> None:
        """Wait until it is deleted.

        Raises:
            Unhealthy: its deletion failed.
            TimedOut: after `limit_s` seconds.
        """
        for state, waited in self._looks(limit_s):
            if state is None:
                return
            # One that had failed before may for a moment still be described as that.
            if state.status == FAILED and waited > _GRACE_S:
                raise self._failure(Unhealthy, f"endpoint {self._name} could not be deleted", state.reason)
            self._progress.state(_describe(state))

    def _looks(self, limit_s: float) -> Iterator[tuple[EndpointState | None, float]]:
        """The endpoint, and the seconds gone by, again and again.

        Where AWS cannot be reached, or is too busy to say, that is told and waited out: what is waited for goes on.
        """
        began = self._account.clock()
        while True:
            waited = self._account.clock() - began
            try:
                state = read_endpoint(self._account, self._name, owned=False)
            except TimedOut as error:
                if waited > limit_s:
                    raise
                self._progress.state(str(error))
            else:
                yield state, waited
                if waited > limit_s:
                    raise TimedOut(
                        f"endpoint {self._name} is {state.status if state else 'not there'} after {waited:.0f} s: run the "
                        "command again to wait on, or raise update.wait_limit_s; `create_endpoint.py status` says how it is"
                    )
            self._account.sleep(_POLL_S)

    def _follow_log(self) -> None:
        for line in self._log.new_lines():
            if not is_metrics(line):
                self._lines.append(line)
                self._progress.log(plain(line))
        del self._lines[:-_LINES_KEPT]

    def _failure(self, kind: type[DeployError], text: str, reason: str) -> DeployError:
        self._follow_log()
        return failure(kind, text, reason, self._lines)


def failure(kind: type[DeployError], text: str, reason: str, lines: Sequence[str]) -> DeployError:
    """The error for an endpoint that failed: what SageMaker says, what the log says, what to do.

    Args:
        kind: Where neither a lack of instances nor a quota is behind it.
        text: What happened.
        reason: SageMaker's `FailureReason`; may be empty.
        lines: Of the container's log.
    """
    line = cause(lines)
    parts = [text, f"SageMaker: {' '.join(reason.split()).rstrip('.')}" if reason else "SageMaker gives no reason"]
    if any(word in reason for word in CAPACITY):
        return NoCapacity("; ".join([*parts, remedy("capacity", None)]))
    if any(word in reason for word in _QUOTA):
        return Denied("; ".join([*parts, "ask for more under Service Quotas, or use fewer or other instances"]))
    if line is not None:
        parts.append(f"log: {line}")
    return kind("; ".join([*parts, remedy(reason, line)]))


def _describe(state: EndpointState) -> str:
    variants = ", ".join(
        f"{variant['VariantName']} {variant.get('CurrentInstanceCount', 0)}/{variant.get('DesiredInstanceCount', 0)}"
        + "".join(f" {status['Status']}" for status in variant.get("VariantStatus", ()))
        for variant in state.variants
    )
    return f"endpoint {state.status}" + (f" ({variants})" if variants else "")
