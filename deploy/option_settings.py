"""The tables of `settings.toml` that are passed through to SageMaker as they are, for those who need them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploy_error import Invalid
from settings_table import SettingsTable


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """Requests and answers that are kept.

    Attributes:
        percent: Of the requests.
        destination: s3://…; empty: a folder in the deployment's bucket.
    """

    percent: int
    destination: str


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Where the container stands.

    Attributes:
        subnets, security_groups: Of a VPC; both or neither.
        isolation: No network at all from within the container.
    """

    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    isolation: bool


@dataclass(frozen=True, slots=True)
class AsyncSettings:
    """Asynchronous inference: the request lies in S3 and the answer goes there.

    Attributes:
        output: s3://…; empty: a folder in the deployment's bucket.
        max_concurrent: Requests in flight for each instance.
        success_topic, error_topic: ARNs of SNS topics; empty: none.
    """

    output: str
    max_concurrent: int
    success_topic: str
    error_topic: str


@dataclass(frozen=True, slots=True)
class ShadowSettings:
    """A second variant that gets a copy of the traffic and whose answers nobody sees.

    Attributes:
        image: Another image's URI; empty: the same.
        type: Instance type; empty: the same.
        count: Instances.
        weight: Share of the requests that it gets: 1.0 is all.
        environment: What differs from the first variant's.
    """

    image: str
    type: str
    count: int
    weight: float
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TransformSettings:
    """Batch transform of a prefix, for bulk work on machines that go away afterwards.

    Attributes:
        type: Instance type; empty: the endpoint's.
        count: Instances.
        max_concurrent: Requests in flight for each instance.
        max_payload_mb: Of a request; times `max_concurrent` at most 100.
        content_type, accept: Of the requests and of the answers.
    """

    type: str
    count: int
    max_concurrent: int
    max_payload_mb: int
    content_type: str
    accept: str


def read_capture(table: SettingsTable) -> CaptureSettings:
    """Read `[capture]`."""
    settings = CaptureSettings(percent=table.integer("percent", 100, 0, 100), destination=table.text("destination", ""))
    table.refuse_unknown()
    return settings


def read_network(table: SettingsTable) -> NetworkSettings:
    """Read `[network]`."""
    settings = NetworkSettings(
        subnets=table.texts("subnets", ()),
        security_groups=table.texts("security_groups", ()),
        isolation=table.switch("isolation", False),
    )
    table.refuse_unknown()
    if bool(settings.subnets) != bool(settings.security_groups):
        raise Invalid("network: subnets and security_groups are given both or neither")
    return settings


def read_asynchronous(table: SettingsTable) -> AsyncSettings:
    """Read `[async]`."""
    settings = AsyncSettings(
        output=table.text("output", ""),
        max_concurrent=table.integer("max_concurrent", 8, 1, 1000),
        success_topic=table.text("success_topic", ""),
        error_topic=table.text("error_topic", ""),
    )
    table.refuse_unknown()
    return settings


def read_shadow(table: SettingsTable) -> ShadowSettings:
    """Read `[shadow]`."""
    settings = ShadowSettings(
        image=table.text("image", ""),
        type=table.text("type", ""),
        count=table.integer("count", 1, 1, 1000),
        weight=table.number("weight", 1.0, 0.0, 1.0),
        environment=table.texts_by_name("environment"),
    )
    table.refuse_unknown()
    return settings


def read_transform(table: SettingsTable) -> TransformSettings:
    """Read `[transform]`."""
    settings = TransformSettings(
        type=table.text("type", ""),
        count=table.integer("count", 1, 1, 1000),
        max_concurrent=table.integer("max_concurrent", 4, 1, 100),
        max_payload_mb=table.integer("max_payload_mb", 25, 1, 100),
        content_type=table.text("content_type", "image/jpeg"),
        accept=table.text("accept", "image/png"),
    )
    table.refuse_unknown()
    if settings.max_concurrent * settings.max_payload_mb > 100:
        raise Invalid(
            f"transform.max_concurrent={settings.max_concurrent}: times transform.max_payload_mb={settings.max_payload_mb} "
            "it may be 100 at most"
        )
    return settings
