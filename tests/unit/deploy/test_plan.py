"""The plan, compared as data: what is to be done follows from what there should be and what there is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from account_state import AccountState, BucketState
from desired import UNKNOWN_DIGEST
from plan import CLEAN, DOCKER_PUSH, Action, ImageSource, Plan, make_plan
from unit.deploy.deployments import DIGEST, FACTS, config, desired, endpoint, only, state_of

SCALED: dict[str, Any] = {"autoscaling": {"min": 1, "max": 4}}


def plan(wanted: Any, state: AccountState, source: ImageSource | None = None) -> Plan:
    return make_plan(wanted, state, "model.tar.gz", source, {"EndpointName": "demo"})


def operations(made: Plan) -> list[str]:
    return [action.operation for action in made.actions]


def test_into_an_empty_account_in_the_order_in_which_one_needs_the_other() -> None:
    wanted = desired(**SCALED, alarms={})
    made = plan(wanted, AccountState())
    assert operations(made) == [
        "create_role",
        "put_role_policy",
        "create_bucket",
        "put_public_access_block",
        "put_bucket_tagging",
        "create_repository",
        "put_lifecycle_policy",
        "tag_image",
        "upload_file",
        "create_model",
        "create_endpoint_config",
        *["put_metric_alarm"] * len(wanted.alarms),
        "create_endpoint",
        "in_service",
        "register_scalable_target",
        "put_scaling_policy",
        "smoke",
    ]
    assert made.changes
    assert not made.updates


def test_an_action_as_data() -> None:
    upload = next(action for action in plan(desired(), AccountState()).actions if action.operation == "upload_file")
    assert upload == Action(
        "s3",
        "upload_file",
        {
            "Filename": "model.tar.gz",
            "Bucket": "multigpu-inference-123456789012-eu-central-1",
            "Key": f"multigpu-inference/demo/{'b' * 16}/model.tar.gz",
        },
        "code and weights",
    )


@pytest.mark.parametrize("tables", [{}, SCALED, {"alarms": {}}, {"shadow": {}, "capture": {}, "async": {}}])
def test_nothing_is_to_be_done_where_all_is_there(tables: dict[str, Any]) -> None:
    wanted = desired(**tables)
    made = plan(wanted, state_of(wanted))
    assert operations(made) == ["smoke"]
    assert not made.changes


def test_what_aws_adds_or_orders_otherwise_is_no_change() -> None:
    wanted = desired(**SCALED, alarms={})
    alarms = {
        alarm["AlarmName"]: dict(reversed(list(alarm.items()))) | {"StateValue": "OK", "Dimensions": alarm["Dimensions"][::-1]}
        for alarm in wanted.alarms
    }
    assert wanted.policy is not None
    body = wanted.policy["TargetTrackingScalingPolicyConfiguration"] | {"DisableScaleIn": False}
    policy = {**wanted.policy, "PolicyARN": "arn", "TargetTrackingScalingPolicyConfiguration": body}
    assert not plan(wanted, state_of(wanted, alarms=alarms, policies=(policy,))).changes


def test_what_a_run_that_was_killed_has_done_is_not_done_again() -> None:
    wanted = desired()
    whole = state_of(wanted)
    half = replace(whole, configs=(), endpoint=None)
    assert operations(plan(wanted, half)) == ["tag_image", "create_endpoint_config", "create_endpoint", "in_service", "smoke"]
    untagged = replace(whole, bucket=BucketState({}, False))
    assert operations(plan(wanted, untagged)) == ["put_public_access_block", "put_bucket_tagging", "smoke"]
    on_its_way = replace(whole, endpoint=endpoint("", "Creating", wanted.config_name))
    assert operations(plan(wanted, on_its_way)) == ["in_service", "smoke"]
    assert not plan(wanted, on_its_way).changes


def test_an_update_remembers_what_was_before() -> None:
    wanted = desired()
    state = state_of(wanted, endpoint=endpoint("demo-c-old"))
    made = plan(wanted, replace(state, configs=(config("demo-c-old", age=1), *state.configs)))
    assert operations(made) == ["tag_config", "update_endpoint", "in_service", "smoke"]
    assert made.actions[0].request["Tags"] == [{"Key": "multigpu-inference:follows", "Value": "demo-c-old"}]
    assert made.actions[1].request == {"EndpointName": "demo", "EndpointConfigName": wanted.config_name}
    assert made.updates


def test_an_update_under_autoscaling_retains_the_number_of_instances() -> None:
    wanted = desired(**SCALED, alarms={})
    state = state_of(wanted, endpoint=endpoint("demo-c-old"))
    made = plan(wanted, replace(state, configs=(config("demo-c-old", age=1), *state.configs)))
    update = next(action.request for action in made.actions if action.operation == "update_endpoint")
    assert update["RetainAllVariantProperties"] is True
    assert {"VariantPropertyType": "DesiredInstanceCount"} not in update["ExcludeRetainedVariantProperties"]
    assert update["DeploymentConfig"] == wanted.update_policy
    assert "register_scalable_target" not in operations(made)


def test_another_instance_type_takes_the_variant_out_of_autoscaling_and_back() -> None:
    wanted = desired(**SCALED, instance={"type": "ml.g5.12xlarge"})
    state = state_of(wanted, endpoint=endpoint("demo-c-old"))
    made = plan(wanted, replace(state, configs=(config("demo-c-old", age=1), *state.configs)))
    assert operations(made) == [
        "deregister_scalable_target",
        "tag_config",
        "update_endpoint",
        "in_service",
        "register_scalable_target",
        "put_scaling_policy",
        "smoke",
    ]


def test_autoscaling_that_the_settings_no_longer_have_goes() -> None:
    scaled = desired(**SCALED)
    wanted = desired()
    state = state_of(scaled)
    assert operations(plan(wanted, state)) == ["deregister_scalable_target", "smoke"]
    other = desired(autoscaling={"min": 1, "max": 4, "metric": "invocations", "target": 100})
    assert operations(plan(other, state)) == ["delete_scaling_policy", "put_scaling_policy", "smoke"]


def test_an_alarm_that_the_settings_no_longer_have_goes() -> None:
    made = plan(desired(), state_of(desired(), alarms={"demo/p99": {}}))
    assert made.actions[0].request == {"AlarmNames": ["demo/p99"]}


def test_an_endpoint_that_failed_is_made_anew() -> None:
    wanted = desired()
    failed = endpoint(wanted.config_name, "Failed", reason="no ping")
    made = plan(wanted, state_of(wanted, endpoint=failed))
    assert operations(made) == ["delete_endpoint", "deleted", "create_endpoint", "in_service", "smoke"]
    assert "no ping" in made.actions[0].why


def test_an_update_whose_rollback_failed_can_be_updated() -> None:
    wanted = desired()
    state = state_of(wanted, endpoint=endpoint("demo-c-old", "UpdateRollbackFailed"))
    assert "update_endpoint" in operations(plan(wanted, state))


def test_an_image_that_is_not_there_yet_is_pushed_first_and_says_so() -> None:
    wanted = desired(replace(FACTS, image=f"multigpu-inference@{UNKNOWN_DIGEST}"))
    made = plan(wanted, AccountState(), ImageSource(DOCKER_PUSH, {"image": "local"}, "the image on this machine"))
    assert operations(made).index("push") < operations(made).index("create_model")
    assert "tag_image" not in operations(made)
    assert made.notes == ("the hashes in names follow from the image's digest, which the push gives",)
    assert not wanted.image_known
    assert DIGEST in desired().image
    assert desired().image_known


def test_a_role_a_bucket_and_an_image_of_ones_own_are_used_as_they_are() -> None:
    own: dict[str, Any] = {
        "role": "arn:aws:iam::123456789012:role/mine",
        "bucket": "mine",
        "image": {"uri": f"123456789012.registry/name@{DIGEST}"},
    }
    assert operations(plan(desired(**own), AccountState()))[:3] == ["upload_file", "create_model", "create_endpoint_config"]


def test_old_versions_go_but_for_the_served_the_one_before_and_the_last_three() -> None:
    wanted = desired()
    state = state_of(wanted)
    served = replace(state.configs[0], tags={**state.configs[0].tags, "multigpu-inference:follows": "demo-c-5"})
    old = [config(f"demo-c-{age}", age) for age in (6, 5, 4, 3, 2, 1)]
    made = plan(wanted, replace(state, configs=(*old, served)))
    clean = next(action for action in made.actions if action.kind == CLEAN)
    assert clean.request == {"configs": ["demo-c-6", "demo-c-4", "demo-c-3"]}
    assert only(clean.request, "configs")
    assert operations(made)[-1] == "old_versions", "after the new one has answered"


def test_after_a_rollback_that_failed_an_update_is_never_left_out() -> None:
    wanted = desired()
    made = plan(wanted, state_of(wanted, endpoint=endpoint(wanted.config_name, "UpdateRollbackFailed")))
    assert operations(made) == ["update_endpoint", "in_service", "smoke"], "a mix of two configurations serves"


def test_the_buckets_other_tags_stay() -> None:
    wanted = desired()
    made = plan(wanted, state_of(wanted, bucket=BucketState({"team": "imaging"}, True)))
    tagging = next(action for action in made.actions if action.operation == "put_bucket_tagging").request["Tagging"]
    assert tagging["TagSet"] == [
        {"Key": "team", "Value": "imaging"},
        {"Key": "multigpu-inference:deployment", "Value": "demo"},
    ]
