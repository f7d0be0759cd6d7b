from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from alarms import rollback_alarms
from desired import scope_of
from policies import deployer_policy, execution_policy
from preflight import check_requests
from unit.deploy.deployments import DIGEST, FACTS, IDENTITY, desired, settings

EVERYTHING: dict[str, Any] = {
    "autoscaling": {"min": 1, "max": 4, "metric": "invocations", "target": 100},
    "alarms": {"notify": "arn:aws:sns:eu-central-1:123456789012:alarms"},
    "capture": {"percent": 10},
    "network": {"subnets": ["subnet-1"], "security_groups": ["sg-1"], "isolation": True},
    "async": {"max_concurrent": 4, "success_topic": "arn:aws:sns:eu-central-1:123456789012:done"},
    "shadow": {"environment": {"MULTIGPU_DTYPE": "float16"}, "weight": 0.5},
    "update": {"strategy": "canary", "percent": 25},
    "kms_key": "1234abcd-12ab-34cd-56ef-1234567890ab",
    "detailed_metrics": True,
    "environment": {"MULTIGPU_FRONT_END": "http"},
    "tags": {"team": "imaging"},
    "reads": ["s3://photos/in/"],
    "writes": ["s3://photos/out/"],
}


def test_names_follow_from_content_alone() -> None:
    assert desired() == desired()
    assert desired().models[0]["ModelName"] == desired(tags={"team": "a"}).models[0]["ModelName"], "tags are no content"


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"environment": {"MULTIGPU_MAX_BATCH_SIZE": "4"}}, FACTS),
        ({}, replace(FACTS, archive_digest="c" * 64)),
        ({}, replace(FACTS, image=FACTS.image.replace(DIGEST, "sha256:" + "d" * 64))),
    ],
)
def test_archive_image_and_environment_make_another_model(change: dict[str, Any], facts: Any) -> None:
    before, after = desired(), desired(facts, **change)
    assert after.models[0]["ModelName"] != before.models[0]["ModelName"]
    assert after.config_name != before.config_name


@pytest.mark.parametrize("change", [{"instance": {"count": 2}}, {"routing": "RANDOM"}, {"capture": {"percent": 5}}])
def test_the_rest_makes_another_configuration_of_the_same_model(change: dict[str, Any]) -> None:
    before, after = desired(), desired(**change)
    assert after.models == before.models
    assert after.config_name != before.config_name


def test_the_variant() -> None:
    assert desired().config["ProductionVariants"] == [
        {
            "VariantName": "main",
            "ModelName": desired().models[0]["ModelName"],
            "InstanceType": "ml.g6.12xlarge",
            "InitialInstanceCount": 1,
            "InitialVariantWeight": 1.0,
            "ContainerStartupHealthCheckTimeoutInSeconds": 900,
            "ModelDataDownloadTimeoutInSeconds": 600,
            "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
            "InferenceAmiVersion": "al2023-ami-sagemaker-inference-gpu-4-1",
        }
    ]


def test_the_container_is_told_what_it_cannot_know_and_what_the_user_says_goes_first() -> None:
    environment = desired(environment={"MULTIGPU_CLOUDWATCH": "0"}).models[0]["PrimaryContainer"]["Environment"]
    assert environment == {"MULTIGPU_ENDPOINT_NAME": "demo", "MULTIGPU_CLOUDWATCH": "0", "MULTIGPU_DEVICES": "cuda"}
    on_cpu = desired(instance={"type": "ml.c5.xlarge"})
    assert on_cpu.models[0]["PrimaryContainer"]["Environment"]["MULTIGPU_DEVICES"] == "cpu"
    assert "InferenceAmiVersion" not in on_cpu.config["ProductionVariants"][0]


def test_every_option_makes_requests_that_aws_would_take() -> None:
    whole = desired(**EVERYTHING)
    assert [finding.text for finding in check_requests(whole)] == []
    assert whole.models[0]["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert whole.models[0]["EnableNetworkIsolation"] is True
    assert whole.models[1]["PrimaryContainer"]["Environment"]["MULTIGPU_DTYPE"] == "float16"
    shadow = whole.config["ShadowProductionVariants"][0]
    assert (shadow["VariantName"], shadow["ModelName"], shadow["InitialVariantWeight"]) == (
        "shadow",
        whole.models[1]["ModelName"],
        0.5,
    )
    assert whole.config["DataCaptureConfig"]["InitialSamplingPercentage"] == 10
    assert whole.config["DataCaptureConfig"]["DestinationS3Uri"].endswith("/multigpu-inference/demo/captured/")
    assert whole.config["AsyncInferenceConfig"]["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 4}
    assert whole.config["MetricsConfig"]["EnableDetailedObservability"] is True
    assert {"Key": "team", "Value": "imaging"} in whole.config["Tags"]
    assert whole.policy is not None
    metric = whole.policy["TargetTrackingScalingPolicyConfiguration"]["PredefinedMetricSpecification"]
    assert metric == {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}


def test_a_key_is_not_given_to_types_with_a_disk_of_their_own() -> None:
    assert "KmsKeyId" not in desired(**EVERYTHING).config
    assert desired(**EVERYTHING).config["DataCaptureConfig"]["KmsKeyId"]
    assert desired(instance={"type": "ml.c5.xlarge"}, kms_key="k").config["KmsKeyId"] == "k"


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (
            {"strategy": "canary", "percent": 25, "wait_s": 60},
            {"Type": "CANARY", "WaitIntervalInSeconds": 60, "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 25}},
        ),
        (
            {"strategy": "linear", "percent": 10, "wait_s": 60},
            {"Type": "LINEAR", "WaitIntervalInSeconds": 60, "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 10}},
        ),
    ],
)
def test_blue_green_updates(update: dict[str, Any], expected: dict[str, Any]) -> None:
    policy = desired(update=update).update_policy
    assert policy is not None
    assert policy["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"] == expected
    assert "AutoRollbackConfiguration" not in policy


def test_a_rolling_update_and_alarms_that_undo_it() -> None:
    policy = desired(update={"strategy": "rolling", "percent": 20}, alarms={}).update_policy
    assert policy is not None
    assert policy["RollingUpdatePolicy"]["MaximumBatchSize"] == {"Type": "CAPACITY_PERCENT", "Value": 20}
    assert policy["AutoRollbackConfiguration"] == {"Alarms": rollback_alarms("demo")}
    assert desired().update_policy is None


def test_alarms_watch_what_they_say() -> None:
    alarms = {alarm["AlarmName"]: alarm for alarm in desired(alarms={"p99_s": 2.5, "device_errors": 0}).alarms}
    assert {entry["AlarmName"] for entry in rollback_alarms("demo")} <= set(alarms)
    p99 = alarms["demo/p99"]
    assert (p99["Namespace"], p99["MetricName"], p99["ExtendedStatistic"], p99["Threshold"]) == (
        "AWS/SageMaker",
        "ModelLatency",
        "p99",
        2_500_000.0,
    )
    devices = alarms["demo/device-errors"]
    assert (devices["Namespace"], devices["MetricName"], devices["Threshold"]) == ("MultiGPU/Inference", "Restarts", 0.0)
    assert devices["Dimensions"] == [{"Name": "EndpointName", "Value": "demo"}]
    assert alarms["demo/HealthyReplicas"]["ComparisonOperator"] == "LessThanThreshold"


def test_policies_allow_this_deployment_and_no_other() -> None:
    scope = scope_of(settings(**EVERYTHING), IDENTITY)
    execution = execution_policy(scope)["Statement"]
    reads = next(statement for statement in execution if statement["Action"] == ["s3:GetObject"])
    assert reads["Resource"] == [
        "arn:aws:s3:::multigpu-inference-123456789012-eu-central-1/multigpu-inference/demo/*",
        "arn:aws:s3:::photos/in/*",
    ]
    lists = [statement for statement in execution if statement["Action"] == ["s3:ListBucket"]]
    assert lists[1]["Condition"] == {"StringLike": {"s3:prefix": "in/*"}}
    writes = next(statement for statement in execution if "s3:PutObject" in statement["Action"])
    assert writes["Resource"][-1] == "arn:aws:s3:::photos/out/*"
    assert all("multigpu-inference/demo/" in resource for resource in writes["Resource"][:-1])
    assert any("ec2:CreateNetworkInterface" in statement["Action"] for statement in execution)
    deployer = deployer_policy(scope)["Statement"]
    for statement in (*execution, *deployer):
        assert not any(action.endswith("*") for action in statement["Action"])
    changing = [s for s in deployer if s["Resource"] == ["*"] and not s.get("Condition")]
    allowed = {action for statement in changing for action in statement["Action"]}
    verbs = {action.partition(":")[2] for action in allowed if not action.startswith("application-autoscaling:")}
    assert all(verb.startswith(("List", "Describe", "Get")) for verb in verbs)
    assert len(json.dumps(execution_policy(scope))) < 10_240, "IAM's limit for a role's own policies"


def test_the_deployer_may_not_change_a_role_and_a_bucket_that_the_settings_name() -> None:
    arn = "arn:aws:iam::123456789012:role/teams/imaging/endpoint"
    whole = json.dumps(deployer_policy(scope_of(settings(), IDENTITY)), separators=(",", ":"))
    assert len(whole) < 6_144, "IAM's limit for a policy of its own"
    named = json.dumps(deployer_policy(scope_of(settings(role=arn, bucket="mine"), IDENTITY)))
    assert f'"{arn}"' in named, "with its path"
    for action in ("iam:PutRolePolicy", "iam:DeleteRole", "s3:CreateBucket", "s3:DeleteBucket"):
        assert action not in named
        assert action in whole
