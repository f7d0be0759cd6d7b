from __future__ import annotations

import pytest

from deploy_error import Invalid
from gpu_driver import ami_version, runs_on
from instance_types import INSTANCE_TYPES, has_gpu, known_gpus
from service_model import enum_values


@pytest.mark.parametrize(
    ("cuda", "expected"),
    [
        ("11.8", "al2-ami-sagemaker-inference-gpu-2-1"),
        ("12.2", "al2-ami-sagemaker-inference-gpu-2-1"),
        ("12.4", "al2-ami-sagemaker-inference-gpu-3-1"),
        ("12.8", "al2023-ami-sagemaker-inference-gpu-4-1"),
        ("13.0", "al2023-ami-sagemaker-inference-gpu-4-1"),
        ("13.2", "al2023-ami-sagemaker-inference-gpu-4-1"),
    ],
)
def test_the_oldest_driver_that_is_new_enough_is_taken(cuda: str, expected: str) -> None:
    assert ami_version(cuda) == expected


def test_a_cuda_without_a_driver_is_refused() -> None:
    with pytest.raises(Invalid, match=r"image\.cuda='14\.0': SageMaker's newest driver is for CUDA 13\.0"):
        ami_version("14.0")
    with pytest.raises(Invalid, match=r"image\.cuda='new': allowed is a version such as 13\.0, or cpu"):
        ami_version("new")


def test_cuda_13_has_no_code_for_gpus_before_turing() -> None:
    assert runs_on("13.0", "7.5")
    assert not runs_on("13.0", "7.0")
    assert runs_on("12.4", "7.0")


def test_every_type_of_the_table_is_one_that_aws_knows() -> None:
    assert set(INSTANCE_TYPES) <= set(enum_values("sagemaker", "ProductionVariantInstanceType"))
    assert all(has_gpu(name) and kind.gpus > 0 for name, kind in INSTANCE_TYPES.items())
    assert (known_gpus("ml.g5.48xlarge"), known_gpus("ml.c5.xlarge"), known_gpus("ml.g7.48xlarge")) == (8, 0, None)
