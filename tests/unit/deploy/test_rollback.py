from __future__ import annotations

from dataclasses import replace

import pytest

from account_state import AccountState, ModelState
from deploy_error import Invalid
from preflight import expected_replicas
from rollback import rollback_plan, settings_of
from unit.deploy.deployments import config, desired, endpoint, settings

TARGET = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/demo/variant/main",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    "MinCapacity": 1,
    "MaxCapacity": 4,
    "RoleARN": "arn:aws:iam::123456789012:role/x",
}
OLD, NEW = config("demo-c-old", age=1), config("demo-c-new", follows="demo-c-old")


def test_back_to_the_configuration_that_was_taken_over_from() -> None:
    state = AccountState(configs=(OLD, NEW), endpoint=endpoint("demo-c-new"))
    plan = rollback_plan(state, "demo", {})
    assert (plan.config, plan.instance_type) == ("demo-c-old", "ml.g6.12xlarge")
    assert [action.operation for action in plan.actions] == ["update_endpoint", "in_service", "smoke"]
    assert plan.actions[0].request == {"EndpointName": "demo", "EndpointConfigName": "demo-c-old"}


def test_the_number_of_instances_is_retained_and_a_change_of_type_comes_back_under_autoscaling() -> None:
    policy = desired(autoscaling={"min": 1, "max": 4}).policy
    assert policy is not None
    old = config("demo-c-old", age=1, instance_type="ml.g5.12xlarge")
    state = AccountState(
        configs=(old, NEW), endpoint=endpoint("demo-c-new"), target=TARGET, policies=({**policy, "PolicyARN": "arn"},)
    )
    plan = rollback_plan(state, "demo", {})
    assert [action.operation for action in plan.actions] == [
        "deregister_scalable_target",
        "update_endpoint",
        "in_service",
        "register_scalable_target",
        "put_scaling_policy",
        "smoke",
    ]
    assert plan.actions[1].request["RetainAllVariantProperties"] is True
    assert "RoleARN" not in plan.actions[3].request
    assert plan.actions[4].request == policy


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (AccountState(), "there is no endpoint demo"),
        (AccountState(configs=(OLD,), endpoint=endpoint("demo-c-old")), "there is no configuration before demo-c-old"),
        (AccountState(configs=(NEW,), endpoint=endpoint("demo-c-new")), "there is no configuration before demo-c-new"),
        (AccountState(configs=(OLD, NEW), endpoint=endpoint("demo-c-new", "Updating")), "endpoint demo is Updating"),
        (AccountState(configs=(OLD, NEW), endpoint=endpoint("demo-c-new", "Failed")), "apply` replaces it"),
    ],
)
def test_where_there_is_nothing_to_go_back_to(state: AccountState, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        rollback_plan(state, "demo", {})


def test_after_a_rollback_that_failed_it_goes_to_what_was_served_before() -> None:
    state = AccountState(configs=(OLD, NEW), endpoint=endpoint("demo-c-old", "UpdateRollbackFailed"))
    assert rollback_plan(state, "demo", {}).config == "demo-c-old"


def test_what_is_invoked_afterwards_is_what_that_configuration_has() -> None:
    model = ModelState("demo-m-demo-c-old", {"PrimaryContainer": {"Environment": {"MULTIGPU_NUM_REPLICAS": "2"}}})
    variant = OLD.request["ProductionVariants"][0] | {"InitialInstanceCount": 1}
    old = replace(OLD, request={"ProductionVariants": [variant]})
    state = AccountState(configs=(old, NEW), models=(model,), endpoint=endpoint("demo-c-new"))
    now = settings(environment={"MULTIGPU_NUM_REPLICAS": "8"}, instance={"count": 3})
    then = settings_of(now, state, "demo-c-old")
    assert (expected_replicas(then, "ml.g6.12xlarge"), then.instance.count) == (2, 1)
    assert settings_of(now, state, "demo-c-gone") == now


def test_one_that_was_interrupted_is_taken_up() -> None:
    state = AccountState(configs=(OLD, NEW), endpoint=endpoint("demo-c-new", "Updating", "demo-c-old"))
    plan = rollback_plan(state, "demo", {})
    assert (plan.config, [action.operation for action in plan.actions]) == ("demo-c-old", ["in_service", "smoke"])
