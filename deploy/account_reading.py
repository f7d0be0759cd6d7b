"""Reads what there is of a deployment in the account."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import autoscaling
from account import Account, tags_of
from account_state import AccountState, BucketState, ConfigState, EndpointState, ModelState
from deploy_error import Denied, Invalid
from desired import TAG, VARIANT
from policies import Scope


def read_state(account: Account, scope: Scope) -> AccountState:
    """Read all of it.

    Args:
        account: To read.
        scope: Names.

    Raises:
        Invalid: where an endpoint or a role of that name is somebody else's.
        Denied: where the bucket is.
    """
    bucket = read_bucket(account, scope)
    role, role_policy = _read_role(account, scope) if scope.own_role else (None, None)
    repository, lifecycle = _read_repository(account, scope)
    target, policies = _read_scaling(account, scope.name)
    alarms, foreign_alarms = _read_alarms(account, scope.name)
    return AccountState(
        role=role,
        role_policy=role_policy,
        bucket=bucket,
        archives=_read_archives(account, scope) if bucket else frozenset(),
        repository=repository,
        lifecycle=lifecycle,
        models=_read_models(account, scope.name),
        configs=_read_configs(account, scope.name),
        endpoint=read_endpoint(account, scope.name),
        target=target,
        policies=policies,
        alarms=alarms,
        foreign_alarms=foreign_alarms,
    )


def read_endpoint(account: Account, name: str, owned: bool = True) -> EndpointState | None:
    """Read the endpoint; None where there is none.

    Args:
        account: To read.
        name: The endpoint's.
        owned: Whether to ask for its tags, and refuse one that was made by other means.
    """
    found = account.find("sagemaker", "describe_endpoint", EndpointName=name)
    if found is None:
        return None
    if owned and tags_of(account.listed("sagemaker", "list_tags", "Tags", ResourceArn=found["EndpointArn"])).get(TAG) != name:
        raise Invalid(
            f"name={name!r}: there is an endpoint of that name which has not been made here (it lacks the tag {TAG}): "
            "choose another name"
        )
    config = found.get("EndpointConfigName", "")
    return EndpointState(
        arn=found["EndpointArn"],
        status=found["EndpointStatus"],
        config=config,
        wanted=found.get("PendingDeploymentSummary", {}).get("EndpointConfigName", config),
        reason=found.get("FailureReason", ""),
        variants=tuple(found.get("ProductionVariants", ())),
    )


def read_bucket(account: Account, scope: Scope) -> BucketState | None:
    """Read the bucket; None where there is none."""
    try:
        found = account.find("s3", "head_bucket", Bucket=scope.bucket, **bucket_owner(scope))
    except Denied as error:
        raise Denied(
            f"bucket {scope.bucket} is another account's, or you may not see it ({error}): name one of yours as `bucket` in "
            "the settings"
        ) from error
    if found is None:
        return None
    region = found.get("BucketRegion", "")
    try:
        tags = account.find("s3", "get_bucket_tagging", Bucket=scope.bucket)
        block = account.find("s3", "get_public_access_block", Bucket=scope.bucket)
    except Denied:
        # Somebody else's bucket that may be used: how it is set up is not for us to see, nor to change.
        return BucketState({}, False, region)
    settings = block["PublicAccessBlockConfiguration"] if block else {}
    return BucketState(tags_of(tags["TagSet"]) if tags else {}, bool(settings) and all(settings.values()), region)


def bucket_owner(scope: Scope) -> dict[str, str]:
    """Whose the bucket must be, for calls to S3.

    A name that follows from the account's number can be taken by somebody else, who would then be given the archives. One that
    the settings name may be another account's.
    """
    return {"ExpectedBucketOwner": scope.identity.account_id} if scope.own_bucket else {}


def configs_in_use(account: Account, but: str = "") -> frozenset[str]:
    """The configurations that any endpoint of the account and region, but one, serves or is on its way to."""
    names = set()
    for summary in account.listed("sagemaker", "list_endpoints", "Endpoints"):
        if summary["EndpointName"] == but:
            continue
        endpoint = read_endpoint(account, summary["EndpointName"], owned=False)
        if endpoint:
            names |= {endpoint.config, endpoint.wanted}
    return frozenset(names)


def models_of_others(account: Account, name: str, mine: frozenset[str]) -> frozenset[str]:
    """The models of a deployment that configurations other than `mine` name."""
    used = set()
    for summary in account.listed("sagemaker", "list_endpoint_configs", "EndpointConfigs"):
        if summary["EndpointConfigName"] in mine:
            continue
        found = account.find("sagemaker", "describe_endpoint_config", EndpointConfigName=summary["EndpointConfigName"])
        used |= set(ConfigState("", "", summary["CreationTime"], {}, found).models) if found else set()
    return frozenset(model for model in used if model.startswith(f"{name}-m-"))


def _read_role(account: Account, scope: Scope) -> tuple[Mapping[str, str] | None, Mapping[str, Any] | None]:
    found = account.find("iam", "get_role", RoleName=scope.role)
    if found is None:
        return None, None
    tags = tags_of(found["Role"].get("Tags", ()))
    if tags.get(TAG) != scope.name:
        raise Invalid(
            f"role {scope.role} is there and has not been made for {scope.name}: name it in the settings as role = ARN"
        )
    policy = account.find("iam", "get_role_policy", RoleName=scope.role, PolicyName="endpoint")
    return tags, _document(policy["PolicyDocument"]) if policy else None


def _read_repository(account: Account, scope: Scope) -> tuple[Mapping[str, str] | None, Mapping[str, Any] | None]:
    if not scope.repository:
        return None, None
    found = account.find("ecr", "describe_repositories", repositoryNames=[scope.repository])
    if found is None:
        return None, None
    tags = account.call("ecr", "list_tags_for_resource", resourceArn=found["repositories"][0]["repositoryArn"])
    lifecycle = account.find("ecr", "get_lifecycle_policy", repositoryName=scope.repository)
    return tags_of(tags["tags"]), _document(lifecycle["lifecyclePolicyText"]) if lifecycle else None


def _read_archives(account: Account, scope: Scope) -> frozenset[str]:
    objects = account.listed("s3", "list_objects_v2", "Contents", Bucket=scope.bucket, Prefix=scope.prefix)
    return frozenset(entry["Key"] for entry in objects if entry["Key"].endswith("/model.tar.gz"))


def _read_models(account: Account, name: str) -> tuple[ModelState, ...]:
    models = []
    for summary in account.listed("sagemaker", "list_models", "Models", NameContains=f"{name}-m-"):
        if summary["ModelName"].startswith(f"{name}-m-") and _is_own(account, summary["ModelArn"], name):
            found = account.find("sagemaker", "describe_model", ModelName=summary["ModelName"])
            models.extend([ModelState(summary["ModelName"], found)] if found else [])
    return tuple(sorted(models, key=lambda model: model.name))


def _read_configs(account: Account, name: str) -> tuple[ConfigState, ...]:
    configs = []
    for summary in account.listed("sagemaker", "list_endpoint_configs", "EndpointConfigs", NameContains=f"{name}-c-"):
        config, arn = summary["EndpointConfigName"], summary["EndpointConfigArn"]
        tags = tags_of(account.listed("sagemaker", "list_tags", "Tags", ResourceArn=arn))
        if config.startswith(f"{name}-c-") and tags.get(TAG) == name:
            found = account.find("sagemaker", "describe_endpoint_config", EndpointConfigName=config)
            configs.extend([ConfigState(config, arn, summary["CreationTime"], tags, found)] if found else [])
    return tuple(sorted(configs, key=lambda config: (config.created, config.name)))


def _read_scaling(account: Account, name: str) -> tuple[Mapping[str, Any] | None, tuple[Mapping[str, Any], ...]]:
    resource = autoscaling.resource_id(name, VARIANT)
    service, scope = "application-autoscaling", {"ServiceNamespace": autoscaling.NAMESPACE}
    targets = list(account.listed(service, "describe_scalable_targets", "ScalableTargets", ResourceIds=[resource], **scope))
    policies = account.listed(service, "describe_scaling_policies", "ScalingPolicies", ResourceId=resource, **scope)
    return (targets[0], tuple(policies)) if targets else (None, ())


def _read_alarms(account: Account, name: str) -> tuple[Mapping[str, Mapping[str, Any]], frozenset[str]]:
    alarms, foreign = {}, set()
    for alarm in account.listed("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=f"{name}/"):
        tags = account.call("cloudwatch", "list_tags_for_resource", ResourceARN=alarm["AlarmArn"])["Tags"]
        # Somebody may well call an alarm of his own after the endpoint: that is neither changed nor deleted.
        if tags_of(tags).get(TAG) == name:
            alarms[alarm["AlarmName"]] = alarm
        else:
            foreign.add(alarm["AlarmName"])
    return alarms, frozenset(foreign)


def _is_own(account: Account, arn: str, name: str) -> bool:
    return tags_of(account.listed("sagemaker", "list_tags", "Tags", ResourceArn=arn)).get(TAG) == name


def _document(text: Any) -> Mapping[str, Any]:
    # IAM's is decoded by boto3, ECR's is text.
    document: Mapping[str, Any] = json.loads(text) if isinstance(text, str) else text
    return document
