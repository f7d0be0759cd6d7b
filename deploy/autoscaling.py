"""Autoscaling as requests: which variant may have how many instances, and what they follow."""

from __future__ import annotations

from typing import Any

from serving_settings import CONCURRENCY, INVOCATIONS, AutoscalingSettings

NAMESPACE = "sagemaker"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"
_METRICS = {
    INVOCATIONS: "SageMakerVariantInvocationsPerInstance",
    # Every 10 seconds in place of every minute: GPUs that answer in a second need it.
    CONCURRENCY: "SageMakerVariantConcurrentRequestsPerModelHighResolution",
}


def resource_id(endpoint: str, variant: str) -> str:
    """What the service calls a variant."""
    return f"endpoint/{endpoint}/variant/{variant}"


def scalable_target(endpoint: str, variant: str, settings: AutoscalingSettings) -> dict[str, Any]:
    """The request of `register_scalable_target`, which also changes one that is there."""
    return {
        "ServiceNamespace": NAMESPACE,
        "ResourceId": resource_id(endpoint, variant),
        "ScalableDimension": DIMENSION,
        "MinCapacity": settings.min_count,
        "MaxCapacity": settings.max_count,
    }


def scaling_policy(endpoint: str, variant: str, settings: AutoscalingSettings) -> dict[str, Any]:
    """The request of `put_scaling_policy`: one policy, which keeps a metric at a value for each instance."""
    return {
        "PolicyName": f"{endpoint}-{settings.metric}",
        "ServiceNamespace": NAMESPACE,
        "ResourceId": resource_id(endpoint, variant),
        "ScalableDimension": DIMENSION,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": settings.target,
            "PredefinedMetricSpecification": {"PredefinedMetricType": _METRICS[settings.metric]},
            "ScaleInCooldown": settings.scale_in_s,
            "ScaleOutCooldown": settings.scale_out_s,
        },
    }
