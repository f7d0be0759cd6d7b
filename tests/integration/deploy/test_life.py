"""From nothing to an endpoint that answers, through updates, and back to nothing."""

from __future__ import annotations

import time
from typing import Any

import boto3
import pytest

from integration.deploy.command import Cli
from integration.deploy.fake_aws import FakeAws

pytestmark = pytest.mark.deploy

AUTOSCALING = '[autoscaling]\nmin = 1\nmax = 3\nmetric = "concurrency"\ntarget = 6.0\n'
ALARMS = "[alarms]\n"


def served(aws: FakeAws) -> str:
    return aws.endpoints["demo"].config


def test_plan_changes_nothing_and_names_every_call_and_the_price(cli: Cli, aws: FakeAws) -> None:
    plan = cli("plan", "--json")
    assert plan.code == 0
    assert [f"{action['service']}.{action['operation']}" for action in plan.data["actions"]] == [
        "iam.create_role",
        "iam.put_role_policy",
        "s3.create_bucket",
        "s3.put_public_access_block",
        "s3.put_bucket_tagging",
        "ecr.put_lifecycle_policy",
        "ecr.tag_image",
        "s3.upload_file",
        "sagemaker.create_model",
        "sagemaker.create_endpoint_config",
        "sagemaker.create_endpoint",
        "wait.in_service",
        "sagemaker-runtime.smoke",
    ]
    assert all(action["why"] for action in plan.data["actions"])
    assert plan.data["price_usd"] == {
        "hour": 5.752,
        "month": pytest.approx(4198.96),
        "at_most": 5.752,
        "while_updating": 11.504,
        "source": "table of 2026-11, us-east-1; second-hand",
    }
    assert aws.writes == []
    assert cli("apply", "--dry-run", "--json").data["actions"] == plan.data["actions"]
    assert aws.writes == []


def test_prices_come_from_the_price_list_where_it_can_be_read(cli: Cli, aws: FakeAws) -> None:
    aws.prices = {"ml.g6.12xlarge": 7.0, "ml.g5.12xlarge": 9.0}
    cli.write(fallback=("ml.g5.12xlarge",), count=2)
    plan = cli("plan", "--json").data
    assert plan["price_usd"]["hour"] == 14.0
    assert plan["price_usd"]["source"] == "AWS's price list, eu-central-1"
    assert "where there is no capacity: ml.g5.12xlarge, 18.00 USD an hour" in plan["warnings"]


def test_the_whole_life_leaves_nothing_behind(cli: Cli, aws: FakeAws, shared_session: boto3.Session) -> None:
    made = cli("apply", "--yes", "--json")
    assert made.code == 0, made.err
    first = served(aws)
    assert made.data["config"] == first
    assert aws.endpoints["demo"].status == "InService"
    assert "4 real requests answered, by 4 replicas" in made.err

    aws.calls.clear()
    again = cli("apply", "--json")  # without --yes: there is nothing to agree to
    assert (again.code, again.data["changed"]) == (0, False)
    assert aws.writes == []

    cli.write(weights=b"better weights")
    assert cli("apply", "--yes").code == 0
    second = served(aws)
    assert second != first

    aws.outcomes.append("rolled back")
    cli.write(weights=b"worse weights")
    failed = cli("apply", "--yes")
    assert failed.code == 6
    assert "did not pass the ping health check" in failed.err
    assert served(aws) == second
    assert len(aws.configs) == 3, "the configuration that failed is kept for inspection"

    back = cli("rollback", "--yes")
    assert back.code == 0, back.err
    assert served(aws) == first
    status = cli("status", "--json").data
    assert (status["status"], status["config"]) == ("InService", first)
    assert [version["config"] for version in status["versions"]][:2] == [first, second]

    deleted = cli("delete", "--yes", "--everything")
    assert deleted.code == 0, deleted.err
    assert (aws.endpoints, aws.configs) == ({}, {})
    assert shared_session.client("sagemaker").list_models()["Models"] == []
    assert shared_session.client("iam").list_roles()["Roles"] == []
    assert shared_session.client("s3").list_buckets()["Buckets"] == []
    assert shared_session.client("ecr").describe_repositories()["repositories"] == []
    assert "nothing of demo is left" in cli("delete", "--yes", "--everything").out


def test_delete_keeps_role_bucket_and_repository_unless_told(cli: Cli, aws: FakeAws, shared_session: boto3.Session) -> None:
    cli("apply", "--yes")
    assert cli("delete", "--yes").code == 0
    assert (aws.endpoints, aws.configs) == ({}, {})
    assert len(shared_session.client("iam").list_roles()["Roles"]) == 1
    assert len(shared_session.client("s3").list_buckets()["Buckets"]) == 1
    assert cli("apply", "--yes").code == 0, "and it can be made again"


def test_an_endpoint_that_is_being_changed_is_deleted_when_it_is_done(cli: Cli, aws: FakeAws) -> None:
    cli("apply", "--yes")
    aws.endpoints["demo"].way.extend(["Updating", "Updating", "InService"])
    deleted = cli("delete", "--yes")
    assert deleted.code == 0, deleted.err
    assert aws.endpoints == {}


def test_delete_keeps_what_others_use(cli: Cli, aws: FakeAws, shared_session: boto3.Session) -> None:
    cli("apply", "--yes")
    shared_session.client("sagemaker").create_endpoint(EndpointName="other", EndpointConfigName=served(aws))
    deleted = cli("delete", "--yes", "--everything", "--json")
    assert deleted.code == 0
    assert "in use elsewhere, and kept" in deleted.data["notes"][0]
    assert len(aws.configs) == 1
    assert len(shared_session.client("sagemaker").list_models()["Models"]) == 1
    assert list(aws.endpoints) == ["other"]


def test_versions_but_the_last_three_and_the_served_ones_go(cli: Cli, aws: FakeAws, shared_session: boto3.Session) -> None:
    names = []
    for number in range(5):
        cli.write(weights=b"weights %d" % number)
        assert cli("apply", "--yes").code == 0
        names.append(served(aws))
    assert list(aws.configs) == names[2:]
    assert len(shared_session.client("sagemaker").list_models()["Models"]) == 3
    keys = shared_session.client("s3").list_objects_v2(Bucket="multigpu-inference-123456789012-eu-central-1")["Contents"]
    assert len(keys) == 3
    aws.calls.clear()
    assert cli("apply").code == 0
    assert aws.writes == []


def test_autoscaling_comes_after_in_service_and_survives_an_update(
    cli: Cli, aws: FakeAws, shared_session: boto3.Session
) -> None:
    cli.write(more=AUTOSCALING)
    assert cli("apply", "--yes").code == 0
    scaling = shared_session.client("application-autoscaling")
    target = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"][0]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 3)
    policy = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"][0]
    metric = policy["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"]["PredefinedMetricType"]
    assert metric == "SageMakerVariantConcurrentRequestsPerModelHighResolution"
    assert aws.calls.index("sagemaker.CreateEndpoint") < aws.calls.index("application-autoscaling.RegisterScalableTarget")

    aws.calls.clear()
    assert cli("apply").code == 0
    assert aws.writes == []

    # The shim refuses an update that does not retain the variant's properties.
    cli.write(more=AUTOSCALING, weights=b"other")
    assert cli("apply", "--yes").code == 0
    # And one that changes the instance type while the variant is scaled.
    cli.write(more=AUTOSCALING, weights=b"other", instance_type="ml.g5.12xlarge")
    assert cli("apply", "--yes").code == 0
    assert len(scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]) == 1
    assert cli("rollback", "--yes").code == 0
    assert len(scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]) == 1

    cli.write(weights=b"other", instance_type="ml.g5.12xlarge")
    assert cli("apply", "--yes").code == 0
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []


def test_alarms_are_made_before_the_update_that_they_undo(cli: Cli, aws: FakeAws, shared_session: boto3.Session) -> None:
    cli.write(more=ALARMS)
    assert cli("apply", "--yes").code == 0
    alarms = {alarm["AlarmName"]: alarm for alarm in shared_session.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    assert {"demo/server-errors", "demo/p99", "demo/device-errors"} <= set(alarms)
    aws.calls.clear()
    assert cli("apply").code == 0
    assert aws.writes == []
    plan = cli("plan", "--json")
    assert plan.code == 0
    cli.write(more=ALARMS, weights=b"other")
    update = next(a for a in cli("plan", "--json").data["actions"] if a["operation"] == "update_endpoint")
    assert {"AlarmName": "demo/p99"} in update["request"]["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]

    shared_session.client("cloudwatch").set_alarm_state(AlarmName="demo/p99", StateValue="ALARM", StateReason="test")
    refused = cli("apply", "--yes")
    assert refused.code == 2
    assert "demo/p99 is on now" in refused.err

    cli.write()
    aws.calls.clear()
    assert cli("apply", "--yes").code == 0
    assert shared_session.client("cloudwatch").describe_alarms()["MetricAlarms"] == []
    assert aws.calls.index("sagemaker.UpdateEndpoint") < aws.calls.index("monitoring.DeleteAlarms")


def test_invoke_logs_and_policies(cli: Cli, aws: FakeAws, tmp_path: Any, shared_session: boto3.Session) -> None:
    cli("apply", "--yes")
    answer = tmp_path / "answer.png"
    invoked = cli("invoke", "demo/photos/chick.jpg", "--output", str(answer), "--json")
    assert invoked.code == 0, invoked.err
    assert answer.read_bytes().startswith(b"\x89PNG")
    assert "replica=" in invoked.data["attributes"]
    assert cli("invoke", "https://example.com/a.jpg", "--output", str(answer)).code == 0
    assert cli("invoke", "no-such-file.jpg").code == 2

    assert "nothing in /aws/sagemaker/Endpoints/demo in the last 60 minutes" in cli("logs").out
    logs = shared_session.client("logs")
    group = "/aws/sagemaker/Endpoints/demo"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="main/i-1")
    line = '{"event": "replica_ready", "source": "engine", "replica": 1}'
    logs.put_log_events(
        logGroupName=group, logStreamName="main/i-1", logEvents=[{"timestamp": int(time.time() * 1000), "message": line}]
    )
    assert "engine: replica ready replica=1" in cli("logs").out

    policies = cli("policies", "--json").data
    passed = next(s for s in policies["deployer"]["Statement"] if s["Action"] == ["iam:PassRole"])
    assert passed["Resource"] == ["arn:aws:iam::123456789012:role/demo-eu-central-1"]
    assert cli("policies", "--create").code == 2, "it asks"
    iam, arn = shared_session.client("iam"), "arn:aws:iam::123456789012:policy/demo-deployer"
    for number in range(7):
        cli.write(top=f'bucket = "bucket-{min(number, 5)}"')
        created = cli("policies", "--create", "--yes")
        assert created.code == 0, created.err
    policy = iam.get_policy(PolicyArn=arn)["Policy"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=policy["DefaultVersionId"])["PolicyVersion"]["Document"]
    assert "arn:aws:s3:::bucket-5" in str(document)
    assert len(iam.list_policy_versions(PolicyArn=arn)["Versions"]) == 5, "IAM keeps no more"
    cli.write()
    assert cli("delete", "--yes", "--logs").code == 0
    assert logs.describe_log_groups()["logGroups"] == []


def test_transform_uses_the_served_model(cli: Cli, aws: FakeAws) -> None:
    aws.image_config["config"] = {"Labels": {"com.multigpu-inference.torch-build": "cu126"}}
    cli("apply", "--yes")
    done = cli("transform", "s3://here/photos/", "s3://here/mattes/", "--yes", "--json")
    assert done.code == 0, done.err
    request = done.data["actions"][0]["request"]
    assert request["ModelName"] == aws.configs[served(aws)]["ProductionVariants"][0]["ModelName"]
    aws.outcomes.append("Failed")
    aws.reason = "ClientError: too many failed requests"
    assert cli("transform", "s3://here/photos/", "s3://here/mattes/", "--yes").code == 5
    assert cli("transform", "photos/", "s3://here/mattes/", "--yes").code == 2
    aws.image_config["config"] = {"Labels": {"com.multigpu-inference.torch-build": "cu130"}}
    refused = cli("transform", "s3://here/photos/", "s3://here/mattes/", "--yes")
    assert refused.code == 2
    assert "batch transform's newest driver is for CUDA 12" in refused.err
