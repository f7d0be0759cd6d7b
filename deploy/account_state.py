"""What there is of a deployment in the account, typed, for the plan to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

IN_SERVICE, FAILED, DELETING = "InService", "Failed", "Deleting"
CREATING, ROLLBACK_FAILED = "Creating", "UpdateRollbackFailed"
# An endpoint in one of these goes somewhere by itself.
MOVING = (CREATING, "Updating", "SystemUpdating", "RollingBack", DELETING)


@dataclass(frozen=True, slots=True)
class EndpointState:
    """The endpoint.

    Attributes:
        arn: Its name for tags.
        status: SageMaker's word.
        config: The configuration that it serves.
        wanted: The configuration that it is on its way to; the same where it is on no way.
        reason: Why it failed; empty: it did not, or SageMaker does not say.
        variants: As SageMaker describes them.
    """

    arn: str
    status: str
    config: str
    wanted: str
    reason: str
    variants: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class ConfigState:
    """An endpoint configuration of this deployment.

    Attributes:
        name, arn: As SageMaker calls it.
        created: When.
        tags: On it.
        request: As SageMaker describes it.
    """

    name: str
    arn: str
    created: datetime
    tags: Mapping[str, str]
    request: Mapping[str, Any]

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it names."""
        variants = (*self.request.get("ProductionVariants", ()), *self.request.get("ShadowProductionVariants", ()))
        return tuple(variant["ModelName"] for variant in variants if "ModelName" in variant)

    @property
    def instance_type(self) -> str:
        """Of its first variant."""
        return str(self.request["ProductionVariants"][0].get("InstanceType", ""))


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model of this deployment: its name and SageMaker's description."""

    name: str
    request: Mapping[str, Any]

    @property
    def archive(self) -> str:
        """Where its model.tar.gz lies."""
        return str(self.request.get("PrimaryContainer", {}).get("ModelDataUrl", ""))


@dataclass(frozen=True, slots=True)
class BucketState:
    """The bucket: its tags, whether the public is kept out, and its region, empty where S3 does not say."""

    tags: Mapping[str, str]
    private: bool
    region: str = ""


@dataclass(frozen=True, slots=True)
class AccountState:
    """Everything of one deployment that is there.

    Attributes:
        role: Its tags; None: there is none.
        role_policy: Its policy; None: it has none of ours.
        bucket: None: there is none.
        archives: The keys of this deployment's archives.
        repository: Its tags; None: there is none.
        lifecycle: The repository's rules; None: it has none.
        models, configs: Of this deployment; configurations by age, the oldest first.
        endpoint: None: there is none.
        target: The scalable target; None: the number of instances is fixed.
        policies: Its scaling policies.
        alarms: Those that were made here, by name.
        foreign_alarms: The names of others that begin alike.
    """

    role: Mapping[str, str] | None = None
    role_policy: Mapping[str, Any] | None = None
    bucket: BucketState | None = None
    archives: frozenset[str] = frozenset()
    repository: Mapping[str, str] | None = None
    lifecycle: Mapping[str, Any] | None = None
    models: tuple[ModelState, ...] = ()
    configs: tuple[ConfigState, ...] = ()
    endpoint: EndpointState | None = None
    target: Mapping[str, Any] | None = None
    policies: tuple[Mapping[str, Any], ...] = ()
    alarms: Mapping[str, Mapping[str, Any]] | None = None
    foreign_alarms: frozenset[str] = frozenset()

    def config(self, name: str) -> ConfigState | None:
        """One of the deployment's configurations; None: there is none of that name."""
        return next((config for config in self.configs if config.name == name), None)
