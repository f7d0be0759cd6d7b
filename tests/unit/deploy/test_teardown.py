from __future__ import annotations

from dataclasses import replace

from account_state import AccountState
from desired import scope_of
from teardown import Shared, teardown_plan
from unit.deploy.deployments import IDENTITY, desired, settings, state_of

SCOPE = scope_of(settings(), IDENTITY)
SCALED = desired(autoscaling={"min": 1, "max": 4}, alarms={})


def operations(state: AccountState, shared: Shared = Shared(), everything: bool = False, logs: bool = False) -> list[str]:  # noqa: B008
    return [action.operation for action in teardown_plan(state, SCOPE, shared, everything, logs).actions]


def test_in_the_order_in_which_aws_lets_go() -> None:
    assert operations(state_of(SCALED), Shared(log=True), everything=True) == [
        "deregister_scalable_target",
        "delete_alarms",
        "delete_endpoint",
        "deleted",
        "delete_endpoint_config",
        "delete_model",
        "delete_object",
        "delete_log_group",
        "delete_role_policy",
        "delete_role",
        "delete_repository",
        "delete_bucket",
    ]


def test_role_bucket_repository_and_log_stay_unless_told() -> None:
    assert operations(state_of(desired()), Shared(log=True))[-1] == "delete_object"
    assert operations(state_of(desired()), Shared(log=True), logs=True)[-1] == "delete_log_group"


def test_what_is_not_the_deployments_own_stays() -> None:
    foreign = replace(state_of(desired()), role={"multigpu-inference:deployment": "other"}, repository={}, bucket=None)
    assert not {"delete_role", "delete_repository", "delete_bucket"} & set(operations(foreign, everything=True))


def test_what_others_use_stays_with_what_it_needs() -> None:
    state = state_of(desired())
    used = Shared(configs=frozenset({state.configs[0].name}), objects=True, images=True)
    plan = teardown_plan(state, SCOPE, used, everything=True, logs=False)
    assert [action.operation for action in plan.actions] == ["delete_endpoint", "deleted", "delete_role_policy", "delete_role"]
    assert any("in use elsewhere, and kept" in note for note in plan.notes)
    assert any("holds images of other deployments" in note for note in plan.notes)


def test_of_nothing_there_is_nothing_to_delete() -> None:
    assert operations(AccountState(), everything=True) == []
