"""Goes back to the configuration that was served before. Pure, but for what `Execution` does with the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from account_state import FAILED, MOVING, ROLLBACK_FAILED, AccountState, ConfigState
from deploy_error import Invalid
from deploy_settings import DeploySettings
from desired import FOLLOWS
from plan import SMOKE, SMOKE_ASYNC, WAIT, Action, Plan, unscale, update_request

_TARGET_KEYS = ("ServiceNamespace", "ResourceId", "ScalableDimension", "MinCapacity", "MaxCapacity")
_POLICY_KEYS = (
    "PolicyName",
    "ServiceNamespace",
    "ResourceId",
    "ScalableDimension",
    "PolicyType",
    "TargetTrackingScalingPolicyConfiguration",
)


def config_before(state: AccountState, name: str) -> ConfigState:
    """The configuration that the served one took the place of.

    Raises:
        Invalid: where there is none, or the endpoint is on its way somewhere else.
    """
    endpoint = state.endpoint
    if endpoint is None:
        raise Invalid(f"there is no endpoint {name}: nothing to go back from")
    current = state.config(endpoint.config)
    before = state.config(current.tags.get(FOLLOWS, "")) if current else None
    if endpoint.status in MOVING:
        if before is not None and endpoint.wanted == before.name:
            return before
        raise Invalid(f"endpoint {name} is {endpoint.status}: wait until it is not (`create_endpoint.py status`)")
    if endpoint.status == FAILED:
        raise Invalid(f"endpoint {name} has failed, and cannot be updated any more: `create_endpoint.py apply` replaces it")
    if endpoint.status == ROLLBACK_FAILED and current:
        # A mix of this one and of the one that was to follow it: what was served before is this one alone.
        return current
    if before is None:
        raise Invalid(f"there is no configuration before {endpoint.config}: deploy what you want with other settings")
    return before


def settings_of(settings: DeploySettings, state: AccountState, config: str) -> DeploySettings:
    """The settings, as far as invocations go, that a configuration was made with: replicas and instances are its own.

    Args:
        settings: What the file says now.
        state: What there is.
        config: The configuration's name.
    """
    found = state.config(config)
    if found is None:
        return settings
    model = next((model for model in state.models if model.name in found.models[:1]), None)
    environment = model.request.get("PrimaryContainer", {}).get("Environment", {}) if model else settings.environment
    count = found.request["ProductionVariants"][0].get("InitialInstanceCount", settings.instance.count)
    return replace(settings, environment=environment, instance=replace(settings.instance, count=count))


def rollback_plan(state: AccountState, name: str, smoke: Mapping[str, Any], asynchronous: bool = False) -> Plan:
    """What going back takes.

    Args:
        state: What there is.
        name: The endpoint's.
        smoke: The request of the invocation at the end, for the reader of the plan.
        asynchronous: Whether the endpoint is invoked by way of S3.
    """
    before = config_before(state, name)
    last = Action(*(SMOKE_ASYNC if asynchronous else SMOKE), smoke, "real requests until every replica has answered")
    return Plan(name, before.name, before.instance_type, (*_actions(state, name, before), last))


def _actions(state: AccountState, name: str, before: ConfigState) -> Iterator[Action]:
    current = state.config(state.endpoint.config) if state.endpoint else None
    other_type = current is not None and current.instance_type != before.instance_type
    scaling = "application-autoscaling"
    if state.target is not None and other_type:
        yield unscale(state.target, "SageMaker changes no instance type under autoscaling; it comes back afterwards")
    request = update_request(name, before.name, state)
    # Else it is on its way there already: a run before this one was interrupted.
    if state.endpoint and state.endpoint.status not in MOVING:
        yield Action(
            "sagemaker", "update_endpoint", request, f"from {current.name if current else '?'}, which serves on meanwhile"
        )
    yield Action(*WAIT, {"EndpointName": name, "EndpointConfigName": before.name}, "until it serves")
    if state.target is not None and other_type:
        target = {key: state.target[key] for key in _TARGET_KEYS}
        yield Action(scaling, "register_scalable_target", target, "how many instances there may be, as before")
        for policy in state.policies:
            yield Action(
                scaling, "put_scaling_policy", {key: policy[key] for key in _POLICY_KEYS}, "what they follow, as before"
            )
