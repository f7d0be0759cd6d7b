from __future__ import annotations

from typing import Any

import pytest

from service_model import enum_values, violations

VARIANT = {"VariantName": "main", "ModelName": "m", "InstanceType": "ml.g5.12xlarge", "InitialInstanceCount": 1}


def config(**more: Any) -> dict[str, Any]:
    return {"EndpointConfigName": "c", "ProductionVariants": [VARIANT | more]}


def test_a_good_request_has_no_violation() -> None:
    assert violations("sagemaker", "create_endpoint_config", config()) == ()


@pytest.mark.parametrize(
    ("operation", "request_", "expected"),
    [
        (
            "create_endpoint_config",
            config(InstanceType="ml.g5.13xlarge"),
            "InstanceType='ml.g5.13xlarge': not a value that AWS",
        ),
        ("create_endpoint_config", config(ContainerStartupHealthCheckTimeoutInSeconds=4000), "allowed are 60 to 3600"),
        ("create_endpoint_config", config(InitialInstanceCount="1"), "InitialInstanceCount='1': allowed is a number"),
        ("create_endpoint_config", config(InitialInstanceCount=0), "0: allowed are 1 to any"),
        ("create_endpoint_config", config(ModelNam="x"), "there is no ModelNam; did you mean ModelName?"),
        ("create_endpoint_config", {"EndpointConfigName": "c"}, "ProductionVariants is missing"),
        ("create_endpoint", {"EndpointName": "a_b", "EndpointConfigName": "c"}, "EndpointName='a_b': allowed is what matches"),
        ("create_endpoint", {"EndpointName": "a" * 64, "EndpointConfigName": "c"}, "64 characters: allowed are 0 to 63"),
        (
            "create_model",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {"A": "x" * 1025}}},
            "create_model.PrimaryContainer.Environment.A: 1025 characters: allowed are 0 to 1024",
        ),
        (
            "create_model",
            {"ModelName": "m", "PrimaryContainer": {"Environment": {f"A{i}": "" for i in range(101)}}},
            "101 entries: allowed are 0 to 100",
        ),
        ("create_model", {"ModelName": "m", "ExecutionRoleArn": "role"}, "4 characters: allowed are 20 to 2048"),
        (
            "create_model",
            {"ModelName": "m", "Tags": [{"Key": "a*b", "Value": ""}]},
            "Tags[0].Key='a*b': allowed is what matches",
        ),
        ("create_model", {"ModelName": "m", "EnableNetworkIsolation": "yes"}, "allowed is true or false"),
    ],
)
def test_what_aws_would_refuse_is_found(operation: str, request_: dict[str, Any], expected: str) -> None:
    assert any(expected in line for line in violations("sagemaker", operation, request_))


def test_letters_of_any_language_are_taken_in_tags() -> None:
    assert violations("sagemaker", "create_model", {"ModelName": "m", "Tags": [{"Key": "größe", "Value": "a:b/c"}]}) == ()


def test_an_enums_values() -> None:
    assert "al2023-ami-sagemaker-inference-gpu-4-1" in enum_values("sagemaker", "ProductionVariantInferenceAmiVersion")
