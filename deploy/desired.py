"""What there should be: settings and digests in, the requests that make it out. Pure.

Names carry a hash of their content: a model's of archive, image and environment, a configuration's of everything in it.
So the same settings give the same names, and a change gives new ones beside the old, to which one can go back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import alarms
import autoscaling
from account import Identity
from deploy_settings import DeploySettings
from gpu_driver import CPU_BUILD, ami_version
from instance_types import has_gpu, has_own_disk
from policies import Scope
from surroundings import lifecycle_request, repository_request, role_policy_request, role_request
from update_policy import update_policy

TAG = "multigpu-inference:deployment"
FOLLOWS = "multigpu-inference:follows"
VARIANT, SHADOW = "main", "shadow"
# Stands for a digest that is known only once the image is in the repository.
UNKNOWN_DIGEST = "sha256:" + "0" * 64
_HASH = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """What the settings do not say.

    Attributes:
        identity: Account and region.
        archive_digest: SHA-256 of model.tar.gz, in hex.
        image: The image's URI by digest; with `UNKNOWN_DIGEST` where it is not in the repository yet.
        cuda: Of the image's torch, or `cpu`.
    """

    identity: Identity
    archive_digest: str
    image: str
    cuda: str


@dataclass(frozen=True, slots=True)
class Desired:
    """A deployment on one instance type, as the requests that make it.

    Attributes:
        name: The endpoint's.
        instance_type: This one of the settings'.
        bucket, archive_key: Where model.tar.gz lies.
        role: `create_role`; None: the settings name one.
        role_policy: `put_role_policy` for it.
        own_bucket: Whether the bucket is one that is made here.
        repository: `create_repository`; None: the image comes from elsewhere.
        lifecycle: `put_lifecycle_policy` for it.
        models: `create_model`, the shadow's included.
        config: `create_endpoint_config`.
        alarms: `put_metric_alarm`.
        target, policy: Autoscaling; None for a fixed number.
        update_policy: `DeploymentConfig` of an update; None: SageMaker's default.
        tags: On everything.
        image: Its URI by digest.
    """

    name: str
    instance_type: str
    bucket: str
    archive_key: str
    role: Mapping[str, Any] | None
    role_policy: Mapping[str, Any] | None
    own_bucket: bool
    repository: Mapping[str, Any] | None
    lifecycle: Mapping[str, Any] | None
    models: tuple[Mapping[str, Any], ...]
    config: Mapping[str, Any]
    alarms: tuple[Mapping[str, Any], ...]
    target: Mapping[str, Any] | None
    policy: Mapping[str, Any] | None
    update_policy: Mapping[str, Any] | None
    tags: tuple[Mapping[str, str], ...]
    image: str

    @property
    def config_name(self) -> str:
        """The configuration's name."""
        return str(self.config["EndpointConfigName"])

    @property
    def image_known(self) -> bool:
        """Whether the names are final: they follow from the image's digest among other things."""
        return UNKNOWN_DIGEST not in self.image


def desire(settings: DeploySettings, facts: Facts, instance_type: str) -> Desired:
    """Work out what there should be.

    Raises:
        Invalid: where no driver suits the image's CUDA.
    """
    scope = scope_of(settings, facts.identity)
    tags = tag_list(settings)
    role_arn = settings.role or scope.arn("iam", f"role/{scope.role}", region=False)
    archive_key = f"{scope.prefix}{facts.archive_digest[:16]}/model.tar.gz"
    archive_url = f"s3://{scope.bucket}/{archive_key}"
    environment = container_environment(settings, instance_type)
    model = _model(settings, facts.image, archive_url, role_arn, environment, tags)
    models, shadow = [model], []
    if settings.shadow:
        shadow_type = settings.shadow.type or instance_type
        shadow_environment = container_environment(settings, shadow_type) | dict(settings.shadow.environment)
        second = _model(settings, settings.shadow.image or facts.image, archive_url, role_arn, shadow_environment, tags)
        if second["ModelName"] != model["ModelName"]:
            models.append(second)
        count, weight = settings.shadow.count, settings.shadow.weight
        shadow = [_variant(settings, facts, SHADOW, second["ModelName"], shadow_type, count, weight)]
    main = _variant(settings, facts, VARIANT, model["ModelName"], instance_type, settings.instance.count, 1.0)
    scaled = settings.autoscaling
    return Desired(
        name=settings.name,
        instance_type=instance_type,
        bucket=scope.bucket,
        archive_key=archive_key,
        role=None if settings.role else role_request(scope, tags),
        role_policy=None if settings.role else role_policy_request(scope),
        own_bucket=scope.own_bucket,
        repository=None if settings.image.uri else repository_request(scope.repository, tags),
        lifecycle=None if settings.image.uri else lifecycle_request(scope.repository),
        models=tuple(models),
        config=_config(settings, scope, [main], shadow, tags),
        alarms=alarms.alarm_requests(settings.name, VARIANT, settings.alarms, tags) if settings.alarms else (),
        target=autoscaling.scalable_target(settings.name, VARIANT, scaled) if scaled else None,
        policy=autoscaling.scaling_policy(settings.name, VARIANT, scaled) if scaled else None,
        update_policy=update_policy(settings),
        tags=tuple(tags),
        image=facts.image,
    )


def scope_of(settings: DeploySettings, identity: Identity) -> Scope:
    """The names that do not depend on any content, as the policies need them."""
    bucket = settings.bucket or f"multigpu-inference-{identity.account_id}-{identity.region}"
    prefix = f"multigpu-inference/{settings.name}/"
    asynchronous = settings.asynchronous
    places = [
        settings.capture and (settings.capture.destination or f"s3://{bucket}/{prefix}captured/"),
        asynchronous and (asynchronous.output or f"s3://{bucket}/{prefix}answers/"),
    ]
    return Scope(
        identity=identity,
        name=settings.name,
        role=settings.role.rsplit("/", 1)[-1] if settings.role else f"{settings.name}-{identity.region}",
        bucket=bucket,
        prefix=prefix,
        repository="" if settings.image.uri else settings.image.repository,
        read=tuple(place.removeprefix("s3://") for place in settings.reads),
        written=tuple(place.removeprefix("s3://") for place in (*places, *settings.writes) if place),
        topics=tuple(topic for topic in (asynchronous.success_topic, asynchronous.error_topic) if topic)
        if asynchronous
        else (),
        vpc=bool(settings.network.subnets),
        kms_key=settings.kms_key,
        role_arn=settings.role,
        own_bucket=not settings.bucket,
    )


def container_environment(settings: DeploySettings, instance_type: str) -> dict[str, str]:
    """The container's settings, with what it cannot find out by itself. What the user sets goes first."""
    return {
        # SageMaker does not tell a container its endpoint's name.
        "MULTIGPU_ENDPOINT_NAME": settings.name,
        "MULTIGPU_CLOUDWATCH": "1",
        # On a GPU type an image whose torch cannot use the GPUs must not serve on the CPU without a word, at the same price.
        "MULTIGPU_DEVICES": "cuda" if has_gpu(instance_type) else "cpu",
        **settings.environment,
    }


def tag_list(settings: DeploySettings) -> list[dict[str, str]]:
    """The tags of everything that is made, the deployment's own first."""
    named = {TAG: settings.name} | dict(settings.tags)
    return [{"Key": key, "Value": value} for key, value in named.items()]


def content_hash(request: Mapping[str, Any]) -> str:
    """Of a request without its name and its tags."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:_HASH]


def _model(
    settings: DeploySettings,
    image: str,
    archive_url: str,
    role_arn: str,
    environment: Mapping[str, str],
    tags: list[dict[str, str]],
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "PrimaryContainer": {"Image": image, "ModelDataUrl": archive_url, "Environment": dict(environment)},
        "ExecutionRoleArn": role_arn,
    }
    if settings.network.subnets:
        content["VpcConfig"] = {
            "Subnets": list(settings.network.subnets),
            "SecurityGroupIds": list(settings.network.security_groups),
        }
    if settings.network.isolation:
        content["EnableNetworkIsolation"] = True
    return {"ModelName": f"{settings.name}-m-{content_hash(content)}", **content, "Tags": tags}


def _variant(
    settings: DeploySettings, facts: Facts, name: str, model: str, instance_type: str, count: int, weight: float
) -> dict[str, Any]:
    variant: dict[str, Any] = {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": instance_type,
        "InitialInstanceCount": count,
        "InitialVariantWeight": weight,
        "ContainerStartupHealthCheckTimeoutInSeconds": settings.instance.startup_timeout_s,
        "ModelDataDownloadTimeoutInSeconds": settings.instance.download_timeout_s,
        "RoutingConfig": {"RoutingStrategy": settings.routing},
    }
    if settings.instance.volume_gb:
        variant["VolumeSizeInGB"] = settings.instance.volume_gb
    if has_gpu(instance_type) and facts.cuda != CPU_BUILD:
        variant["InferenceAmiVersion"] = ami_version(facts.cuda)
    return variant


def _config(
    settings: DeploySettings,
    scope: Scope,
    variants: list[dict[str, Any]],
    shadow: list[dict[str, Any]],
    tags: list[dict[str, str]],
) -> dict[str, Any]:
    folder = f"s3://{scope.bucket}/{scope.prefix}"
    key = {"KmsKeyId": settings.kms_key} if settings.kms_key else {}
    content: dict[str, Any] = {"ProductionVariants": variants}
    if shadow:
        content["ShadowProductionVariants"] = shadow
    if not any(has_own_disk(variant["InstanceType"]) for variant in (*variants, *shadow)):
        # A disk of the machine's own is encrypted by the machine, and SageMaker refuses a key for it.
        content |= key
    if settings.capture:
        content["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": settings.capture.percent,
            "DestinationS3Uri": settings.capture.destination or f"{folder}captured/",
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            **key,
        }
    if settings.asynchronous:
        topics = {"SuccessTopic": settings.asynchronous.success_topic, "ErrorTopic": settings.asynchronous.error_topic}
        topics = {name: topic for name, topic in topics.items() if topic}
        content["AsyncInferenceConfig"] = {
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": settings.asynchronous.max_concurrent},
            "OutputConfig": {
                "S3OutputPath": settings.asynchronous.output or f"{folder}answers/",
                **({"NotificationConfig": topics} if topics else {}),
                **key,
            },
        }
    if settings.detailed_metrics:
        content["MetricsConfig"] = {"EnableEnhancedMetrics": True, "EnableDetailedObservability": True}
    return {"EndpointConfigName": f"{settings.name}-c-{content_hash(content)}", **content, "Tags": tags}
