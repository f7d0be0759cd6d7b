"""What is to be deployed: `settings.toml` as frozen dataclasses.

A value that is not allowed stops the command with its name, the value and what is allowed; so does a key that is not
known, with the nearest one that is. What AWS allows is not repeated here: `preflight.py` asks botocore's own service model.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy_error import Invalid
from option_settings import (
    AsyncSettings,
    CaptureSettings,
    NetworkSettings,
    ShadowSettings,
    TransformSettings,
    read_asynchronous,
    read_capture,
    read_network,
    read_shadow,
    read_transform,
)
from serving_settings import (
    AlarmSettings,
    AutoscalingSettings,
    UpdateSettings,
    read_alarms,
    read_autoscaling,
    read_update,
)
from settings_table import SettingsTable

ROOT = Path(__file__).resolve().parent.parent
# With what is added to it (`-m-0123456789`), a name stays below SageMaker's 63 characters.
_MAX_NAME = 40
_RESERVED_TAGS = ("aws:", "multigpu-inference:")
# Of a commit, in the tag that buildspec.yml gives its image.
COMMIT_LENGTH = 12

REPOSITORY, DOCKER, CODEBUILD = "repository", "docker", "codebuild"


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What goes into model.tar.gz.

    Attributes:
        archive: A model.tar.gz that is there already; None: it is packed from the next two.
        code: The folder that becomes `code/`.
        weights: Files that go to the root.
    """

    archive: Path | None
    code: Path
    weights: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """The container's image.

    Attributes:
        uri: An image in ECR, by tag or digest; empty: `tag` in `repository`.
        repository: Name of the ECR repository, made if missing.
        tag: Of the image in the repository.
        source: Who puts it there: `repository` (it is there), `docker` (the local image is pushed), `codebuild` (a build does).
        local: The local image's name, for `docker`.
        project: The CodeBuild project, for `codebuild`.
        revision: The commit that CodeBuild builds, unless its image is there; empty: its project's default, once.
        cuda: Of the image's torch build, such as 13.0; `cpu` for a CPU build; empty: read from the image, else 13.0.
    """

    uri: str
    repository: str
    tag: str
    source: str
    local: str
    project: str
    revision: str
    cuda: str


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """What it runs on.

    Attributes:
        type: Instance type.
        fallback: Types that are tried in turn where AWS has none of the first.
        count: Instances.
        volume_gb: Of the volume; None: SageMaker's default. Refused for types with a disk of their own.
        startup_timeout_s: From the container's start to its first 200 of /ping.
        download_timeout_s: For model.tar.gz.
    """

    type: str
    fallback: tuple[str, ...]
    count: int
    volume_gb: int | None
    startup_timeout_s: int
    download_timeout_s: int

    @property
    def types(self) -> tuple[str, ...]:
        """All types in the order in which they are tried."""
        return (self.type, *self.fallback)


@dataclass(frozen=True, slots=True)
class SmokeSettings:
    """The invocations that a deployment ends with.

    Attributes:
        files: What is sent, in turn; the content type follows from the suffix unless it is given.
        content_type, accept: Of the request and of the answer; empty: by suffix, and whatever the model gives.
        attempts: At most this many; None: worked out from the number of replicas.
    """

    files: tuple[Path, ...]
    content_type: str
    accept: str
    attempts: int | None


@dataclass(frozen=True, slots=True)
class DeploySettings:
    """Everything a deployment can be told.

    Attributes:
        name: The endpoint's, and the beginning of every other name.
        role: ARN of the execution role; empty: one is made.
        bucket: For archives; empty: one is made.
        reads, writes: Places in S3, s3://bucket/prefix, that the execution role may read and write besides its own.
        environment: The container's settings.
        routing: SageMaker's routing strategy over instances.
        kms_key: For the instances' volumes and what is captured; empty: none.
        detailed_metrics: Whether SageMaker scrapes the container's /metrics.
        tags: Put on everything that is made, besides the deployment's own.
        autoscaling, alarms, capture, asynchronous, shadow: None where the settings have no such table.
    """

    name: str
    role: str
    bucket: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    model: ModelSettings
    image: ImageSettings
    instance: InstanceSettings
    environment: Mapping[str, str]
    routing: str
    kms_key: str
    detailed_metrics: bool
    tags: Mapping[str, str]
    autoscaling: AutoscalingSettings | None
    update: UpdateSettings
    alarms: AlarmSettings | None
    capture: CaptureSettings | None
    network: NetworkSettings
    asynchronous: AsyncSettings | None
    shadow: ShadowSettings | None
    transform: TransformSettings
    smoke: SmokeSettings

    @classmethod
    def from_file(cls, path: Path) -> DeploySettings:
        """Read a TOML file; its relative paths are relative to the repository.

        Raises:
            Invalid: at the first key or value that is not allowed.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise Invalid(f"{path}: {error.strerror}: name the settings with --settings FILE") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"{path} is not TOML: {error}") from error
        return cls.from_table(table)

    @classmethod
    def from_table(cls, values: Mapping[str, Any], root: Path = ROOT) -> DeploySettings:
        """Build them from what TOML gives; see `from_file`."""
        table = SettingsTable(values, "", root)
        settings = cls(
            name=_name(table),
            role=table.text("role", ""),
            bucket=table.text("bucket", ""),
            reads=table.places("reads"),
            writes=table.places("writes"),
            model=_model(table.table("model")),
            image=_image(table.table("image")),
            instance=_instance(table.table("instance")),
            environment=table.texts_by_name("environment"),
            routing=table.choice("routing", "LEAST_OUTSTANDING_REQUESTS", ("LEAST_OUTSTANDING_REQUESTS", "RANDOM")),
            kms_key=table.text("kms_key", ""),
            detailed_metrics=table.switch("detailed_metrics", False),
            tags=_tags(table),
            autoscaling=read_autoscaling(table.table("autoscaling")) if "autoscaling" in values else None,
            update=read_update(table.table("update")),
            alarms=read_alarms(table.table("alarms")) if "alarms" in values else None,
            capture=read_capture(table.table("capture")) if "capture" in values else None,
            network=read_network(table.table("network")),
            asynchronous=read_asynchronous(table.table("async")) if "async" in values else None,
            shadow=read_shadow(table.table("shadow")) if "shadow" in values else None,
            transform=read_transform(table.table("transform")),
            smoke=_smoke(table.table("smoke")),
        )
        table.refuse_unknown()
        if (
            settings.autoscaling
            and not settings.autoscaling.min_count <= settings.instance.count <= settings.autoscaling.max_count
        ):
            raise Invalid(
                f"instance.count={settings.instance.count}: allowed is autoscaling.min to autoscaling.max, "
                f"{settings.autoscaling.min_count} to {settings.autoscaling.max_count}"
            )
        return settings


def _name(table: SettingsTable) -> str:
    name = table.text("name", "")
    if not name or len(name) > _MAX_NAME or not all(c.isascii() and (c.isalnum() or c == "-") for c in name):
        raise Invalid(f"name={name!r}: allowed are 1 to {_MAX_NAME} letters, digits and hyphens")
    if name.startswith("-") or name.endswith("-"):
        raise Invalid(f"name={name!r}: it may neither begin nor end with a hyphen")
    return name


def _tags(table: SettingsTable) -> Mapping[str, str]:
    tags = table.texts_by_name("tags")
    for key in tags:
        if key.lower().startswith(_RESERVED_TAGS):
            raise Invalid(f"tags: {key!r}: a key that begins with {' or '.join(_RESERVED_TAGS)} is not the user's to set")
    return tags


def _model(table: SettingsTable) -> ModelSettings:
    archive = table.text("archive", "")
    settings = ModelSettings(
        archive=table.root / archive if archive else None,
        code=table.path("code", "code"),
        weights=table.files("weights", ()),
    )
    table.refuse_unknown()
    return settings


def _image(table: SettingsTable) -> ImageSettings:
    settings = ImageSettings(
        uri=table.text("uri", ""),
        repository=table.text("repository", "multigpu-inference"),
        tag=table.text("tag", "latest"),
        source=table.choice("source", REPOSITORY, (REPOSITORY, DOCKER, CODEBUILD)),
        local=table.text("local", "multigpu-inference:local"),
        project=table.text("project", ""),
        revision=table.text("revision", ""),
        cuda=table.text("cuda", ""),
    )
    table.refuse_unknown()
    if settings.uri and settings.source != REPOSITORY:
        raise Invalid(
            f"image.source={settings.source!r}: image.uri names an image that is there already; leave one of the two out"
        )
    if settings.source == CODEBUILD and not settings.project:
        raise Invalid("image.project='': image.source = \"codebuild\" needs the name of a CodeBuild project")
    if settings.revision and not re.fullmatch(f"[0-9a-f]{{{COMMIT_LENGTH},40}}", settings.revision):
        raise Invalid(
            f"image.revision={settings.revision!r}: allowed is a commit, by its first {COMMIT_LENGTH} characters at least"
        )
    return settings


def _instance(table: SettingsTable) -> InstanceSettings:
    settings = InstanceSettings(
        type=table.text("type", "ml.g6.12xlarge"),
        fallback=table.texts("fallback", ()),
        count=table.integer("count", 1, 1, 1000),
        volume_gb=table.optional_integer("volume_gb", 1, 16_384),
        startup_timeout_s=table.integer("startup_timeout_s", 900, 60, 3600),
        download_timeout_s=table.integer("download_timeout_s", 600, 60, 3600),
    )
    table.refuse_unknown()
    return settings


def _smoke(table: SettingsTable) -> SmokeSettings:
    settings = SmokeSettings(
        files=table.files("files", ("demo/photos/*.jpg",)),
        content_type=table.text("content_type", ""),
        accept=table.text("accept", ""),
        attempts=table.optional_integer("attempts", 1, 100_000),
    )
    table.refuse_unknown()
    return settings
