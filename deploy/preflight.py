"""What would go wrong, found before anything is made or paid for.

Each check is a function of what is known: it gives findings, and changes and calls nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import source_paths  # noqa: F401
from account_state import AccountState
from container_image import DOCKER_MANIFEST, ContainerImage
from deploy_error import Denied, DeployError, Invalid
from deploy_settings import DeploySettings
from desired import Desired, container_environment
from gpu_driver import CPU_BUILD, runs_on
from instance_types import INSTANCE_TYPES, has_gpu, has_own_disk, known_gpus
from model_archive import ModelArchive
from multigpu_inference.config import Settings
from multigpu_inference.engine.placement import plan_placement
from multigpu_inference.errors import SettingsError
from service_model import violations
from serving_settings import ALL_AT_ONCE, ROLLING

DEFAULT_CUDA = "13.0"
# What CUDA and torch take of a GPU for each process that uses it, before any weight.
_CONTEXT_BYTES = 1 << 29
_ENVIRONMENT_BYTES = 32_768


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check has found.

    Attributes:
        text: One line: what, where, and what to do.
        error: The class to end with; None: a warning.
    """

    text: str
    error: type[DeployError] | None = Invalid


def refuse(findings: Iterable[Finding]) -> tuple[str, ...]:
    """End with what cannot be deployed; give the warnings back.

    Raises:
        DeployError: with all errors in one text, of the first one's class.
    """
    found = tuple(findings)
    errors = [finding for finding in found if finding.error is not None]
    if errors and errors[0].error is not None:
        raise errors[0].error("; ".join(dict.fromkeys(finding.text for finding in errors)))
    return tuple(dict.fromkeys(finding.text for finding in found))


def check_requests(desired: Desired) -> Iterator[Finding]:
    """Every request against botocore's own service model."""
    requests: list[tuple[str, str, Mapping[str, Any]]] = [("sagemaker", "create_model", model) for model in desired.models]
    requests.append(("sagemaker", "create_endpoint_config", desired.config))
    requests.append(("sagemaker", "create_endpoint", {"EndpointName": desired.name, "EndpointConfigName": desired.config_name}))
    if desired.update_policy:
        update = {
            "EndpointName": desired.name,
            "EndpointConfigName": desired.config_name,
            "DeploymentConfig": desired.update_policy,
        }
        requests.append(("sagemaker", "update_endpoint", update))
    requests.extend(("cloudwatch", "put_metric_alarm", alarm) for alarm in desired.alarms)
    if desired.target and desired.policy:
        requests.append(("application-autoscaling", "register_scalable_target", desired.target))
        requests.append(("application-autoscaling", "put_scaling_policy", desired.policy))
    if desired.role and desired.role_policy:
        requests.append(("iam", "create_role", desired.role))
        requests.append(("iam", "put_role_policy", desired.role_policy))
    if desired.repository and desired.lifecycle:
        requests.append(("ecr", "create_repository", desired.repository))
        requests.append(("ecr", "put_lifecycle_policy", desired.lifecycle))
    for service, operation, request in requests:
        for line in violations(service, operation, request):
            yield Finding(line)


def check_environment(settings: DeploySettings, archive: ModelArchive, instance_type: str) -> Iterator[Finding]:
    """The container's settings as the container itself would read them, and its placement on the type's GPUs."""
    environment = container_environment(settings, instance_type)
    size = sum(len(name) + len(value) for name, value in environment.items())
    if size > _ENVIRONMENT_BYTES:
        yield Finding(f"[environment] has {size} characters in all: SageMaker takes {_ENVIRONMENT_BYTES}")
    try:
        container = Settings.from_env(environment)
        gpus = known_gpus(instance_type)
        if gpus is None:
            yield Finding(f"{instance_type} is not in deploy/instance_types.py: its GPUs are not checked", None)
            return
        devices = [f"cuda:{index}" for index in range(gpus)] or ["cpu"]
        replicas = container.engine.num_replicas or max(gpus, 1)
        if has_gpu(instance_type) and container.engine.devices == "cpu":
            yield Finding(f"[environment] MULTIGPU_DEVICES=cpu on {instance_type}: its GPUs are paid for and not used", None)
            devices = ["cpu"]
        placement = plan_placement(devices, archive.stages, replicas, container.engine.placement)
    except SettingsError as error:
        yield Finding(f"[environment] {error} (the container would refuse it)")
        return
    used = {device for replica in placement for device in replica if device.startswith("cuda")}
    if gpus and len(used) < gpus:
        yield Finding(
            f"{len(used)} of the {gpus} GPUs of {instance_type} are used: see MULTIGPU_NUM_REPLICAS and MULTIGPU_PLACEMENT",
            None,
        )
    workers = container.front_end.workers
    if workers is not None and workers < replicas * archive.stages:
        yield Finding(
            f"SAGEMAKER_MODEL_SERVER_WORKERS={workers}: that many requests are in flight at most, "
            f"and {replicas * archive.stages} are needed to keep all stages busy",
            None,
        )
    if settings.detailed_metrics and container.front_end.kind != "http":
        yield Finding(
            'detailed_metrics = true: only the HTTP front end has /metrics: MULTIGPU_FRONT_END = "http" in [environment]'
        )
    yield from _memory(archive, instance_type, placement)


def _memory(archive: ModelArchive, instance_type: str, placement: tuple[tuple[str, ...], ...]) -> Iterator[Finding]:
    kind = INSTANCE_TYPES.get(instance_type)
    if kind is None:
        return
    # Which weights belong to which stage is not known: a replica's are shared out evenly over its stages.
    held: dict[str, float] = {}
    for replica in placement:
        for device in replica:
            held[device] = held.get(device, 0.0) + archive.weights_bytes / len(replica)
    for device, weights in held.items():
        if not device.startswith("cuda"):
            continue
        processes = sum(device in replica for replica in placement)
        needed, there = weights + processes * _CONTEXT_BYTES, kind.gpu_gib * (1 << 30)
        text = (
            f"{device} of {instance_type} ({kind.gpu_gib} GiB) would hold {needed / (1 << 30):.1f} GiB of weights and contexts"
        )
        if needed > there:
            yield Finding(f"{text}: fewer replicas (MULTIGPU_NUM_REPLICAS), or GPUs with more memory")
        elif needed > 0.8 * there:
            yield Finding(f"{text}: little is left for requests", None)


def check_instance(settings: DeploySettings, instance_type: str, cuda: str) -> Iterator[Finding]:
    """The instance type against the image's CUDA, and its volume."""
    kind = INSTANCE_TYPES.get(instance_type)
    if has_own_disk(instance_type) and settings.instance.volume_gb:
        yield Finding(f"instance.volume_gb={settings.instance.volume_gb}: {instance_type} has a disk of its own: leave it out")
    if not has_gpu(instance_type):
        return
    on_cpu = settings.environment.get("MULTIGPU_DEVICES", "").lower() == "cpu"
    if cuda == CPU_BUILD and not on_cpu:
        yield Finding(
            f"the image has a CPU build of torch: on {instance_type} it would not start: build it without a CPU index"
        )
    elif cuda != CPU_BUILD and kind and not runs_on(cuda, kind.compute_capability):
        yield Finding(
            f"CUDA {cuda} of the image has no code for the {kind.gpu} of {instance_type}: take another type or an older CUDA"
        )


def check_update(settings: DeploySettings) -> Iterator[Finding]:
    """The update policy against the number of instances."""
    if settings.update.strategy != ALL_AT_ONCE and settings.instance.count < 2:
        yield Finding(
            f"update.strategy={settings.update.strategy!r} with one instance: steps are of whole instances: AWS may refuse it",
            None,
        )
    if settings.update.strategy == ROLLING and settings.shadow:
        yield Finding("update.strategy='rolling' with [shadow]: a shadow variant is only updated blue/green")


def check_image(image: ContainerImage, settings: DeploySettings) -> Iterator[Finding]:
    """The image's media type and architecture, and its CUDA against what the settings say."""
    if image.media_type != DOCKER_MANIFEST:
        yield Finding(
            f"{image.uri} has the media type {image.media_type}: SageMaker takes Docker's only: build with --provenance=false "
            "--sbom=false, as `make image` does"
        )
    if image.architecture is None:
        yield Finding(f"the configuration of {image.uri} could not be read: that it is for amd64 is not checked", None)
    elif image.architecture != "amd64":
        yield Finding(f"{image.uri} is for {image.architecture}: build it with --platform linux/amd64")
    if image.cuda and settings.image.cuda and image.cuda != settings.image.cuda:
        yield Finding(f"image.cuda={settings.image.cuda!r}: the image says {image.cuda}: leave the setting out")


def check_account(settings: DeploySettings, desired: Desired, state: AccountState, region: str) -> Iterator[Finding]:
    """What is in the account against what is needed of it."""
    if settings.bucket and state.bucket is None:
        yield Finding(f"bucket={settings.bucket!r}: there is no such bucket: make it, or leave the setting out")
    if state.bucket is not None and state.bucket.region not in ("", region):
        yield Finding(
            f"bucket {desired.bucket} is in {state.bucket.region}: SageMaker in {region} reads from its own region only"
        )
    for alarm in desired.alarms:
        if alarm["AlarmName"] in state.foreign_alarms:
            yield Finding(f"alarm {alarm['AlarmName']} is there and has not been made here: rename it, or leave [alarms] out")
    if state.endpoint is None or state.endpoint.config == desired.config_name or desired.update_policy is None:
        return
    for entry in desired.update_policy.get("AutoRollbackConfiguration", {}).get("Alarms", []):
        if (state.alarms or {}).get(entry["AlarmName"], {}).get("StateValue") == "ALARM":
            yield Finding(
                f"alarm {entry['AlarmName']} is on now, and would undo the update at once: wait until it is off, "
                "or leave [alarms] out for this update"
            )


def check_role(role: Mapping[str, Any] | None, arn: str) -> Iterator[Finding]:
    """A role that the settings name: it is there and trusts SageMaker.

    Args:
        role: IAM's description; None: there is none.
        arn: Its name in the settings.
    """
    if role is None:
        yield Finding(f"role={arn!r}: there is no such role in this account: make it, or leave the setting out")
        return
    trust = role["AssumeRolePolicyDocument"]
    trust = trust if isinstance(trust, Mapping) else json.loads(trust)
    services = [
        statement.get("Principal", {}) for statement in trust.get("Statement", []) if statement.get("Effect") == "Allow"
    ]
    if not any("sagemaker.amazonaws.com" in str(principal) for principal in services):
        yield Finding(
            f"role={arn!r}: it does not trust sagemaker.amazonaws.com: `create_endpoint.py policies` prints how it must"
        )


def check_quota(settings: DeploySettings, instance_type: str, quota: float | None, updating: bool) -> Iterator[Finding]:
    """The account's quota for a type against the number of instances, twice while an update has two fleets.

    Args:
        settings: Number of instances.
        instance_type: This one of the settings' types.
        quota: None: it could not be found out.
        updating: Whether a fleet is there already.
    """
    count = settings.autoscaling.max_count if settings.autoscaling else settings.instance.count
    if quota is None:
        yield Finding(f"the quota for {instance_type} could not be read: it is 0 in most new accounts", None)
    elif quota < settings.instance.count:
        yield Finding(
            f"the quota '{instance_type} for endpoint usage' is {quota:.0f}, {settings.instance.count} needed: ask for more "
            "under Service Quotas (Amazon SageMaker), which takes hours to days, or take another type",
            Denied,
        )
    elif quota < count or (updating and settings.update.strategy != ROLLING and quota < 2 * settings.instance.count):
        yield Finding(
            f"the quota '{instance_type} for endpoint usage' is {quota:.0f}: too few for autoscaling's most, or for an update",
            None,
        )


def cuda_of_deployment(settings: DeploySettings, image: ContainerImage | None) -> str:
    """The CUDA to deploy for: the settings', else the image's, else that of PyPI's torch, which the image has by default."""
    return settings.image.cuda or (image.cuda if image else None) or DEFAULT_CUDA


def expected_replicas(settings: DeploySettings, instance_type: str) -> int | None:
    """How many replicas an instance will have; None where neither settings nor table tell."""
    given = settings.environment.get("MULTIGPU_NUM_REPLICAS", "").strip()
    if given.isdigit():
        return int(given)
    gpus = known_gpus(instance_type)
    if gpus is None:
        return None
    return 1 if settings.environment.get("MULTIGPU_DEVICES", "").lower() == "cpu" else max(gpus, 1)
