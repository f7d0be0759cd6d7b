"""Takes a deployment away: what it made and nothing else, in the order in which AWS lets go of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from account import Account
from account_reading import configs_in_use, models_of_others
from account_state import AccountState
from desired import TAG
from plan import WAIT_GONE, Action, Plan, unscale
from policies import Scope
from surroundings import DEPLOYED_TAG, deployed_tag


@dataclass(frozen=True, slots=True)
class Shared:
    """What others use of it.

    Attributes:
        configs: Configurations of this deployment that other endpoints serve.
        models: Models of this deployment that other configurations name.
        objects: Whether the bucket holds anything but this deployment's archives.
        log: Whether there is a log group.
        images: Whether the repository holds images that other deployments have deployed.
    """

    configs: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    objects: bool = False
    log: bool = False
    images: bool = False


def read_shared(account: Account, scope: Scope, state: AccountState) -> Shared:
    """Look at who else uses what the deployment made."""
    own = frozenset(config.name for config in state.configs)
    objects = account.listed("s3", "list_objects_v2", "Contents", Bucket=scope.bucket) if state.bucket else iter(())
    images = account.listed("ecr", "list_images", "imageIds", repositoryName=scope.repository) if state.repository else iter(())
    groups = account.listed("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=log_group(scope))
    return Shared(
        configs=configs_in_use(account, but=scope.name) & own,
        models=models_of_others(account, scope.name, own),
        log=any(group["logGroupName"] == log_group(scope) for group in groups),
        objects=any(entry["Key"] not in state.archives for entry in objects),
        images=any(
            image.get("imageTag", "").startswith(DEPLOYED_TAG)
            and image["imageTag"] != deployed_tag(scope.name, image.get("imageDigest", ""))
            for image in images
        ),
    )


def teardown_plan(state: AccountState, scope: Scope, shared: Shared, everything: bool, logs: bool) -> Plan:
    """What is to be deleted, in order. Pure.

    Args:
        state: What there is.
        scope: Names.
        shared: What others use of it, which stays.
        everything: Role, bucket, repository and log too.
        logs: The log too.
    """
    notes = []
    if shared.configs or shared.models:
        notes.append(f"in use elsewhere, and kept: {', '.join(sorted(shared.configs | shared.models))}")
    actions = [*_serving(state, scope), *_versions(state, scope, shared)]
    if shared.log and (everything or logs):
        group = {"logGroupName": log_group(scope)}
        actions.append(Action("logs", "delete_log_group", group, "the container's log"))
    if everything:
        actions.extend(_surroundings(state, scope, shared))
        if shared.objects and state.bucket:
            notes.append(f"bucket {scope.bucket} holds more than this deployment's archives, and is kept")
        if shared.images:
            notes.append(f"repository {scope.repository} holds images of other deployments, and is kept")
    return Plan(scope.name, "", "", tuple(actions), tuple(notes))


def log_group(scope: Scope) -> str:
    """Where SageMaker puts the container's log."""
    return f"/aws/sagemaker/Endpoints/{scope.name}"


def _serving(state: AccountState, scope: Scope) -> Iterator[Action]:
    if state.target is not None:
        yield unscale(state.target, "nothing is to be scaled")
    if state.alarms:
        yield Action("cloudwatch", "delete_alarms", {"AlarmNames": sorted(state.alarms)}, "nothing is to be watched")
    if state.endpoint is not None:
        name = {"EndpointName": scope.name}
        yield Action("sagemaker", "delete_endpoint", name, "stops the instances: from here on it costs nothing")
        yield Action(*WAIT_GONE, name, "until it is gone")


def _versions(state: AccountState, scope: Scope, shared: Shared) -> Iterator[Action]:
    kept = {model for config in state.configs if config.name in shared.configs for model in config.models} | shared.models
    for config in state.configs:
        if config.name not in shared.configs:
            yield Action("sagemaker", "delete_endpoint_config", {"EndpointConfigName": config.name}, "no endpoint serves it")
    for model in state.models:
        if model.name not in kept:
            yield Action("sagemaker", "delete_model", {"ModelName": model.name}, "no configuration names it")
    archives = {model.archive for model in state.models if model.name in kept}
    for key in sorted(state.archives):
        if f"s3://{scope.bucket}/{key}" not in archives:
            yield Action("s3", "delete_object", {"Bucket": scope.bucket, "Key": key}, "no model has it")


def _surroundings(state: AccountState, scope: Scope, shared: Shared) -> Iterator[Action]:
    if state.role is not None and state.role.get(TAG) == scope.name:
        role = {"RoleName": scope.role}
        yield Action("iam", "delete_role_policy", role | {"PolicyName": "endpoint"}, "a role with a policy cannot be deleted")
        yield Action("iam", "delete_role", role, "it was made for this deployment")
    if state.repository is not None and state.repository.get(TAG) == scope.name and not shared.images:
        request = {"repositoryName": scope.repository, "force": True}
        yield Action("ecr", "delete_repository", request, "it was made by this deployment; its images go with it")
    if (
        state.bucket is not None
        and state.bucket.tags.get(TAG) == scope.name
        and not (shared.objects or shared.models or shared.configs)
    ):
        yield Action("s3", "delete_bucket", {"Bucket": scope.bucket}, "it was made by this deployment, and is empty now")
