"""From what there should be and what there is to what is to be done. Pure: a dry run is the plan, printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from account import tags_of
from account_state import DELETING, FAILED, MOVING, ROLLBACK_FAILED, AccountState, EndpointState
from desired import FOLLOWS, TAG, Desired
from likeness import holds
from old_versions import KEPT, obsolete_configs
from surroundings import deployed_tag

# What is carried out by us rather than by one call.
DOCKER_PUSH, CODEBUILD_RUN = ("docker", "push"), ("codebuild", "build_and_wait")
WAIT, WAIT_GONE, SMOKE = ("wait", "in_service"), ("wait", "deleted"), ("sagemaker-runtime", "smoke")
SMOKE_ASYNC = ("sagemaker-runtime", "smoke_async")
CLEAN = ("clean", "old_versions")
UPLOAD, TAG_IMAGE = ("s3", "upload_file"), ("ecr", "tag_image")
_PREPARING = ("iam", "s3", "ecr", "docker", "codebuild")
_WITHOUT_EFFECT = (WAIT, WAIT_GONE, SMOKE, SMOKE_ASYNC)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    Attributes:
        service, operation: As boto3 calls them, or one of the pairs above.
        request: Its arguments.
        why: In words, for the one who is asked.
    """

    service: str
    operation: str
    request: Mapping[str, Any]
    why: str

    @property
    def kind(self) -> tuple[str, str]:
        """Service and operation."""
        return self.service, self.operation

    @property
    def writes(self) -> bool:
        """Whether it changes the account."""
        return self.kind not in _WITHOUT_EFFECT

    @property
    def prepares(self) -> bool:
        """Whether it comes before SageMaker: role, bucket, repository, image, archive."""
        return self.service in _PREPARING


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in order.

    Attributes:
        endpoint: The endpoint's name.
        config: The configuration that it serves afterwards; empty: there is no endpoint afterwards.
        instance_type: Of that configuration.
        actions: In the order in which they must be done.
        notes: What the user should know.
    """

    endpoint: str
    config: str
    instance_type: str
    actions: tuple[Action, ...]
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything in the account would change."""
        return any(action.writes for action in self.actions)

    @property
    def updates(self) -> bool:
        """Whether a running endpoint gets a new configuration, which costs a second fleet for a while."""
        return any(action.operation == "update_endpoint" for action in self.actions)


@dataclass(frozen=True, slots=True)
class ImageSource:
    """How the image gets into the repository where it is not there yet: an action's kind, and its request."""

    kind: tuple[str, str]
    request: Mapping[str, Any]
    why: str


def make_plan(
    desired: Desired,
    state: AccountState,
    archive: str,
    source: ImageSource | None,
    smoke: Mapping[str, Any],
    asynchronous: bool = False,
) -> Plan:
    """Compare what there should be with what there is.

    Args:
        desired: What there should be.
        state: What there is. An endpoint that is on its way somewhere must be on its way to `desired`.
        archive: The local model.tar.gz.
        source: How the image gets into the repository; None: it is there.
        smoke: The request of the invocation at the end, for the reader of the plan.
        asynchronous: Whether the endpoint is invoked by way of S3.
    """
    notes = () if desired.image_known else ("the hashes in names follow from the image's digest, which the push gives",)
    actions = [
        *_role(desired, state),
        *_bucket(desired, state),
        *_repository(desired, state, source),
        *_archive(desired, state, archive),
        *_models(desired, state),
        *_config(desired, state),
        *_alarms(desired, state),
        *_endpoint(desired, state),
        *_scaling(desired, state),
        *_old_alarms(desired, state),
    ]
    kind = SMOKE_ASYNC if asynchronous else SMOKE
    actions.append(Action(*kind, smoke, "real requests until every replica has answered"))
    actions.extend(_clean(desired, state))
    return Plan(desired.name, desired.config_name, desired.instance_type, tuple(actions), notes)


def _role(desired: Desired, state: AccountState) -> Iterator[Action]:
    if desired.role is None or desired.role_policy is None:
        return
    if state.role is None:
        yield Action("iam", "create_role", desired.role, "the container needs a role: it reads the archive and writes its log")
    if state.role_policy != json.loads(desired.role_policy["PolicyDocument"]):
        yield Action("iam", "put_role_policy", desired.role_policy, "what that role may do, and no more")


def _bucket(desired: Desired, state: AccountState) -> Iterator[Action]:
    if not desired.own_bucket:
        return
    name: dict[str, Any] = {"Bucket": desired.bucket}
    if state.bucket is None:
        yield Action("s3", "create_bucket", name, "for model.tar.gz, which SageMaker reads from S3")
    if state.bucket is None or not state.bucket.private:
        block = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
        request = name | {"PublicAccessBlockConfiguration": block}
        yield Action("s3", "put_public_access_block", request, "nobody else reads it")
    if state.bucket is None or TAG not in state.bucket.tags:
        tags = {**(state.bucket.tags if state.bucket else {}), **tags_of(desired.tags)}
        request = name | {"Tagging": {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}}
        yield Action("s3", "put_bucket_tagging", request, "so that delete finds it")


def _repository(desired: Desired, state: AccountState, source: ImageSource | None) -> Iterator[Action]:
    if desired.repository is not None and desired.lifecycle is not None:
        if state.repository is None:
            yield Action("ecr", "create_repository", desired.repository, "for the container's image; scanned when it is pushed")
        if state.lifecycle != json.loads(desired.lifecycle["lifecyclePolicyText"]):
            yield Action("ecr", "put_lifecycle_policy", desired.lifecycle, "old images go, deployed ones stay")
    if source is not None:
        yield Action(*source.kind, source.request, source.why)
    elif desired.repository is not None and desired.config_name not in {config.name for config in state.configs}:
        digest = desired.image.rsplit("@", 1)[-1]
        request = {
            "repositoryName": desired.repository["repositoryName"],
            "imageDigest": digest,
            "imageTag": deployed_tag(desired.name, digest),
        }
        yield Action(*TAG_IMAGE, request, "keeps the image from being expired while it is deployed")


def _archive(desired: Desired, state: AccountState, archive: str) -> Iterator[Action]:
    if desired.archive_key not in state.archives:
        request = {"Filename": archive, "Bucket": desired.bucket, "Key": desired.archive_key}
        yield Action(*UPLOAD, request, "code and weights")


def _models(desired: Desired, state: AccountState) -> Iterator[Action]:
    there = {model.name for model in state.models}
    for model in desired.models:
        if model["ModelName"] not in there:
            yield Action("sagemaker", "create_model", model, "image, archive and environment under one name")


def _config(desired: Desired, state: AccountState) -> Iterator[Action]:
    if state.config(desired.config_name) is None:
        count = desired.config["ProductionVariants"][0]["InitialInstanceCount"]
        yield Action("sagemaker", "create_endpoint_config", desired.config, f"the model on {count} {desired.instance_type}")


def _alarms(desired: Desired, state: AccountState) -> Iterator[Action]:
    there = state.alarms or {}
    for alarm in desired.alarms:
        found = there.get(alarm["AlarmName"])
        wanted = {key: value for key, value in alarm.items() if key != "Tags"}
        if not holds(found, wanted):
            yield Action("cloudwatch", "put_metric_alarm", alarm, alarm["AlarmDescription"])


def _old_alarms(desired: Desired, state: AccountState) -> Iterator[Action]:
    gone = sorted(set(state.alarms or {}) - {alarm["AlarmName"] for alarm in desired.alarms})
    # They watch until the endpoint serves what no longer names them.
    if gone:
        yield Action("cloudwatch", "delete_alarms", {"AlarmNames": gone}, "the settings have them no more")


def _endpoint(desired: Desired, state: AccountState) -> Iterator[Action]:
    endpoint = state.endpoint
    name = {"EndpointName": desired.name}
    wait = Action(*WAIT, name | {"EndpointConfigName": desired.config_name}, "until it serves")
    create = name | {"EndpointConfigName": desired.config_name, "Tags": list(desired.tags)}
    if endpoint is None or endpoint.status in (DELETING, FAILED):
        if endpoint is not None and endpoint.status == FAILED:
            why = f"it failed, and nothing else can be done with it: {endpoint.reason}"
            yield Action("sagemaker", "delete_endpoint", name, why)
            yield Action(*WAIT_GONE, name, "until it is gone")
        yield Action("sagemaker", "create_endpoint", create, "starts the instances: from here on it costs")
        yield wait
    elif endpoint.status in MOVING and endpoint.wanted == desired.config_name:
        yield wait
    elif endpoint.wanted != desired.config_name or endpoint.status == ROLLBACK_FAILED:
        # A mix of two configurations serves after a rollback that failed, whatever the endpoint's own says.
        yield from _update(desired, state, endpoint)
        yield wait


def _update(desired: Desired, state: AccountState, endpoint: EndpointState) -> Iterator[Action]:
    yield from _unscale_for(desired, state, endpoint)
    config = state.config(desired.config_name)
    is_new = desired.config_name != endpoint.config
    if is_new and (config is None or config.tags.get(FOLLOWS) != endpoint.config):
        request = {"config": desired.config_name, "Tags": [{"Key": FOLLOWS, "Value": endpoint.config}]}
        yield Action("sagemaker", "tag_config", request, "so that rollback knows what was before")
    update = update_request(desired.name, desired.config_name, state)
    if desired.update_policy is not None:
        update["DeploymentConfig"] = dict(desired.update_policy)
    yield Action("sagemaker", "update_endpoint", update, f"from {endpoint.config}, which serves on meanwhile")


def update_request(endpoint: str, config: str, state: AccountState) -> dict[str, Any]:
    """The request of `update_endpoint`, without a policy of how."""
    request: dict[str, Any] = {"EndpointName": endpoint, "EndpointConfigName": config}
    if state.target is not None:
        # Else an update sets the number of instances back to the configuration's, under load.
        request["RetainAllVariantProperties"] = True
        request["ExcludeRetainedVariantProperties"] = [
            {"VariantPropertyType": kind} for kind in ("DesiredWeight", "DataCaptureConfig")
        ]
    return request


def _unscale_for(desired: Desired, state: AccountState, endpoint: EndpointState) -> Iterator[Action]:
    current = state.config(endpoint.config)
    if state.target is None or current is None or current.instance_type == desired.instance_type:
        return
    yield unscale(state.target, "SageMaker changes no instance type under autoscaling; it comes back afterwards")


def unscale(target: Mapping[str, Any], why: str) -> Action:
    """Take away a scalable target, and its policies with it."""
    request = {key: target[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
    return Action("application-autoscaling", "deregister_scalable_target", request, why)


def _scaling(desired: Desired, state: AccountState) -> Iterator[Action]:
    service = "application-autoscaling"
    current = state.config(state.endpoint.config) if state.endpoint else None
    # With a failed endpoint SageMaker takes its autoscaling away.
    failed = state.endpoint is not None and state.endpoint.status == FAILED
    was_removed = failed or (current is not None and current.instance_type != desired.instance_type)
    if desired.target is None or desired.policy is None:
        if state.target is not None and not was_removed:
            yield unscale(state.target, "the settings have no autoscaling any more")
        return
    if was_removed or not holds(state.target, desired.target):
        yield Action(service, "register_scalable_target", desired.target, "how many instances there may be")
    for policy in state.policies:
        if policy["PolicyName"] != desired.policy["PolicyName"] and not was_removed:
            keys = ("PolicyName", "ServiceNamespace", "ResourceId", "ScalableDimension")
            yield Action(
                service, "delete_scaling_policy", {key: policy[key] for key in keys}, "the settings follow another metric"
            )
    if was_removed or not any(holds(policy, desired.policy) for policy in state.policies):
        yield Action(service, "put_scaling_policy", desired.policy, "what they follow")


def _clean(desired: Desired, state: AccountState) -> Iterator[Action]:
    old = [config.name for config in obsolete_configs(state, desired.config_name)]
    if old:
        why = f"neither served, nor the one before that, nor among the last {KEPT}; with what only they use"
        yield Action(*CLEAN, {"configs": old}, why)
