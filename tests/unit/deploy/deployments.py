"""Deployments for tests: settings, what is known of the account, and an account whose answers are written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import boto3
from botocore.stub import Stubber

from account import Account, Identity
from account_state import AccountState, BucketState, ConfigState, EndpointState, ModelState
from deploy_settings import DeploySettings
from desired import FOLLOWS, Desired, Facts, desire

DIGEST = "sha256:" + "a" * 64
IDENTITY = Identity("123456789012", "eu-central-1", "aws", "arn:aws:iam::123456789012:user/me")
FACTS = Facts(IDENTITY, "b" * 64, f"123456789012.registry/multigpu-inference@{DIGEST}", "13.0")


def settings(**tables: Any) -> DeploySettings:
    """Settings from what TOML would give."""
    return DeploySettings.from_table({"name": "demo", **tables})


def desired(facts: Facts = FACTS, **tables: Any) -> Desired:
    """What there should be for such settings, on their first type."""
    deployment = settings(**tables)
    return desire(deployment, facts, deployment.instance.type)


def config(name: str, age: int = 0, follows: str = "", instance_type: str = "ml.g6.12xlarge", model: str = "") -> ConfigState:
    """A configuration of the deployment `demo`, made `age` hours before noon."""
    tags = {"multigpu-inference:deployment": "demo"} | ({FOLLOWS: follows} if follows else {})
    variant = {"VariantName": "main", "ModelName": model or f"demo-m-{name}", "InstanceType": instance_type}
    created = datetime(2026, 1, 1, 12) - timedelta(hours=age)
    return ConfigState(name, f"arn:{name}", created, tags, {"ProductionVariants": [variant]})


def endpoint(serves: str, status: str = "InService", wanted: str = "", reason: str = "") -> EndpointState:
    """The endpoint of the deployment `demo`."""
    return EndpointState("arn:demo", status, serves, wanted or serves, reason, ())


def state_of(deployment: Desired, **more: Any) -> AccountState:
    """An account in which a deployment is there to the last action."""
    found = ConfigState(
        deployment.config_name, "arn:config", datetime(2026, 1, 1), {"multigpu-inference:deployment": "demo"}, deployment.config
    )
    whole: dict[str, Any] = {
        "role": {"multigpu-inference:deployment": "demo"},
        "role_policy": json.loads(deployment.role_policy["PolicyDocument"]) if deployment.role_policy else None,
        "bucket": BucketState({"multigpu-inference:deployment": "demo"}, True),
        "archives": frozenset({deployment.archive_key}),
        "repository": {"multigpu-inference:deployment": "demo"},
        "lifecycle": json.loads(deployment.lifecycle["lifecyclePolicyText"]) if deployment.lifecycle else None,
        "models": tuple(ModelState(model["ModelName"], model) for model in deployment.models),
        "configs": (found,),
        "endpoint": endpoint(deployment.config_name),
        "target": deployment.target,
        "policies": (deployment.policy,) if deployment.policy else (),
        "alarms": {alarm["AlarmName"]: alarm for alarm in deployment.alarms},
    }
    return AccountState(**(whole | more))


class StubbedAccount:
    """An account whose services answer what a test has written down, in that order; nothing goes out."""

    def __init__(self) -> None:
        self.region_name = "eu-central-1"
        self.slept: list[float] = []
        self._clients: dict[str, Any] = {}
        self.account = Account(self, self.slept.append, self.clock)

    def clock(self) -> float:
        return sum(self.slept)

    def stub(self, service: str) -> Stubber:
        """The answers of a service, to be added to."""
        client = boto3.client(service, region_name="eu-central-1", aws_access_key_id="test", aws_secret_access_key="test")
        stubber = Stubber(client)
        stubber.activate()
        self._clients[service] = client
        return stubber

    def client(self, service: str, region_name: str | None = None, config: Any = None) -> Any:
        return self._clients[service]


def only(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A part of a mapping."""
    return {key: values[key] for key in keys}
