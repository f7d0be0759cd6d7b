from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from account_state import BucketState
from container_image import DOCKER_MANIFEST, ContainerImage
from deploy_error import Denied, Invalid
from model_archive import ModelArchive
from preflight import (
    Finding,
    check_account,
    check_environment,
    check_image,
    check_instance,
    check_quota,
    check_role,
    check_update,
    expected_replicas,
    refuse,
)
from unit.deploy.deployments import desired, endpoint, settings, state_of

G6 = "ml.g6.12xlarge"
HERE = "eu-central-1"


def archive(weights_gib: float = 1.0, stages: int = 2) -> ModelArchive:
    return ModelArchive(Path("model.tar.gz"), "0" * 64, 1, int(weights_gib * (1 << 30)), stages)


def texts(findings: Any) -> list[str]:
    return [f"{'error' if finding.error else 'warning'}: {finding.text}" for finding in findings]


def test_errors_end_it_with_the_class_of_the_first_and_warnings_come_back() -> None:
    assert refuse([Finding("a", None), Finding("a", None), Finding("b", None)]) == ("a", "b")
    with pytest.raises(Denied, match="quota; other"):
        refuse([Finding("w", None), Finding("quota", Denied), Finding("other")])


def test_a_plain_deployment_has_no_findings() -> None:
    assert texts(check_environment(settings(), archive(), G6)) == []
    assert texts(check_instance(settings(), G6, "13.0")) == []
    assert texts(check_update(settings())) == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MULTIGPU_NUM_REPLICA": "4"}, "error: [environment] MULTIGPU_NUM_REPLICA is not a setting; did you mean"),
        ({"MULTIGPU_DTYPE": "half"}, "error: [environment] MULTIGPU_DTYPE='half': allowed are float32"),
        ({"MULTIGPU_PLACEMENT": "cuda:0,cuda:4"}, "error: [environment] MULTIGPU_PLACEMENT: there is no cuda:4"),
        ({"MULTIGPU_PLACEMENT": "cuda:0"}, "error: [environment] MULTIGPU_PLACEMENT: 'cuda:0' names 1 devices"),
        ({"MULTIGPU_NUM_REPLICAS": "2"}, "warning: 3 of the 4 GPUs of ml.g6.12xlarge are used"),
        ({"MULTIGPU_DEVICES": "cpu"}, "warning: [environment] MULTIGPU_DEVICES=cpu on ml.g6.12xlarge"),
        ({"SAGEMAKER_MODEL_SERVER_WORKERS": "4"}, "warning: SAGEMAKER_MODEL_SERVER_WORKERS=4: that many requests"),
        ({"A": "x" * 33_000}, "error: [environment] has 33"),
    ],
)
def test_the_containers_settings_are_read_as_it_would_read_them(environment: dict[str, str], expected: str) -> None:
    found = texts(check_environment(settings(environment=environment), archive(), G6))
    assert any(text.startswith(expected) for text in found), found


def test_weights_must_fit_the_gpus() -> None:
    assert any(
        "error: cuda:0 of ml.g6.12xlarge (24 GiB) would hold 31.0 GiB" in t
        for t in texts(check_environment(settings(), archive(30), G6))
    )
    assert any("warning: cuda:0" in text for text in texts(check_environment(settings(), archive(20), G6)))
    eight = settings(environment={"MULTIGPU_NUM_REPLICAS": "8"})
    assert any("error: cuda:0" in text for text in texts(check_environment(eight, archive(12), G6)))


def test_metrics_need_the_front_end_that_has_them() -> None:
    assert any(
        "only the HTTP front end has /metrics" in t
        for t in texts(check_environment(settings(detailed_metrics=True), archive(), G6))
    )
    right = settings(detailed_metrics=True, environment={"MULTIGPU_FRONT_END": "http"})
    assert texts(check_environment(right, archive(), G6)) == []


def test_the_instance_against_the_image() -> None:
    assert texts(check_instance(settings(), G6, "cpu")) == [
        "error: the image has a CPU build of torch: on ml.g6.12xlarge it would not start: build it without a CPU index"
    ]
    assert texts(check_instance(settings(environment={"MULTIGPU_DEVICES": "cpu"}), G6, "cpu")) == []
    volume = settings(instance={"volume_gb": 100})
    assert texts(check_instance(volume, G6, "13.0")) == [
        "error: instance.volume_gb=100: ml.g6.12xlarge has a disk of its own: leave it out"
    ]
    assert texts(check_instance(volume, "ml.c5.xlarge", "13.0")) == []


def test_updates_in_steps_want_more_than_one_instance() -> None:
    assert "with one instance" in texts(check_update(settings(update={"strategy": "canary", "percent": 10})))[0]
    assert texts(check_update(settings(update={"strategy": "canary", "percent": 10}, instance={"count": 4}))) == []
    rolling = settings(update={"strategy": "rolling", "percent": 10}, instance={"count": 4}, shadow={})
    assert "only updated blue/green" in texts(check_update(rolling))[0]


def test_the_image() -> None:
    good = ContainerImage("repo@sha256:1", DOCKER_MANIFEST, "amd64", "13.0")
    assert texts(check_image(good, settings())) == []
    oci = ContainerImage("repo@sha256:1", "application/vnd.oci.image.index.v1+json", None, None)
    assert texts(check_image(oci, settings()))[0].startswith("error: repo@sha256:1 has the media type application/vnd.oci")
    assert texts(check_image(oci, settings()))[1].startswith("warning: the configuration of repo@sha256:1 could not be read")
    other = settings(image={"cuda": "12.4"})
    assert texts(check_image(good, other)) == ["error: image.cuda='12.4': the image says 13.0: leave the setting out"]


def test_the_account() -> None:
    assert texts(check_account(settings(bucket="mine"), desired(bucket="mine"), state_of(desired(), bucket=None), HERE)) == [
        "error: bucket='mine': there is no such bucket: make it, or leave the setting out"
    ]
    elsewhere = state_of(desired(), bucket=BucketState({}, True, "us-east-1"))
    assert "is in us-east-1: SageMaker in eu-central-1 reads" in texts(check_account(settings(), desired(), elsewhere, HERE))[0]
    wanted = desired(alarms={})
    on = state_of(wanted, alarms={"demo/p99": {"StateValue": "ALARM"}}, endpoint=endpoint("demo-c-old"))
    assert "alarm demo/p99 is on now" in texts(check_account(settings(alarms={}), wanted, on, HERE))[0]
    serving = state_of(wanted, alarms={"demo/p99": {"StateValue": "ALARM"}})
    assert texts(check_account(settings(alarms={}), wanted, serving, HERE)) == []


def test_a_role_of_ones_own_must_trust_sagemaker() -> None:
    def role(service: str) -> dict[str, Any]:
        statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        return {"AssumeRolePolicyDocument": {"Statement": [statement]}}

    assert texts(check_role(role("sagemaker.amazonaws.com"), "arn")) == []
    assert "does not trust sagemaker.amazonaws.com" in texts(check_role(role("ec2.amazonaws.com"), "arn"))[0]
    assert "there is no such role" in texts(check_role(None, "arn"))[0]


def test_the_quota() -> None:
    two = settings(instance={"count": 2})
    assert texts(check_quota(two, G6, 8, updating=False)) == []
    assert "is 1, 2 needed" in texts(check_quota(two, G6, 1, updating=False))[0]
    assert next(iter(check_quota(two, G6, 1, updating=False))).error is Denied
    assert texts(check_quota(two, G6, 3, updating=True))[0].startswith("warning: the quota")
    assert texts(check_quota(two, G6, None, updating=False))[0].startswith("warning: the quota for ml.g6.12xlarge could not be")


def test_how_many_replicas_must_answer() -> None:
    assert expected_replicas(settings(), "ml.g5.48xlarge") == 8
    assert expected_replicas(settings(environment={"MULTIGPU_NUM_REPLICAS": "3"}), G6) == 3
    assert expected_replicas(settings(), "ml.c5.xlarge") == 1
    assert expected_replicas(settings(environment={"MULTIGPU_DEVICES": "cpu"}), G6) == 1
    assert expected_replicas(settings(), "ml.g7.48xlarge") is None
    with pytest.raises(Invalid):
        refuse([Finding("x")])
