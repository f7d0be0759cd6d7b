"""Which machine image of SageMaker's has a driver for the image's CUDA: `InferenceAmiVersion`.

Left to SageMaker, an image with a newer CUDA than the default driver's starts nowhere, and the endpoint stays in Creating
without a line in its log.
"""

from __future__ import annotations

from deploy_error import Invalid
from service_model import enum_values

CPU_BUILD = "cpu"
# The newest CUDA that each driver knows: 535, 550, 580. An older CUDA runs on a newer driver.
_NEWEST_CUDA = {
    "al2-ami-sagemaker-inference-gpu-2-1": (12, 2),
    "al2-ami-sagemaker-inference-gpu-3-1": (12, 4),
    "al2023-ami-sagemaker-inference-gpu-4-1": (13, 0),
}
# Driver 535: the newest that batch transform has.
_TRANSFORM_AMI, _TRANSFORM_MAJOR = "al2-ami-sagemaker-batch-gpu-535", 12
# The oldest GPUs that CUDA 13 still has code for.
_OLDEST_FOR_13 = (7, 5)


def ami_version(cuda: str) -> str:
    """The oldest machine image whose driver is new enough.

    Args:
        cuda: Such as 13.0.

    Raises:
        Invalid: where no machine image that botocore knows has such a driver.
    """
    wanted = version(cuda)
    offered = enum_values("sagemaker", "ProductionVariantInferenceAmiVersion")
    for name, newest in _NEWEST_CUDA.items():
        # Within a major version a driver runs what is newer than itself, too; 13.x needs nothing newer than 13.0's.
        enough = newest >= wanted or (name == list(_NEWEST_CUDA)[-1] and newest[0] == wanted[0])
        if name in offered and enough:
            return name
    newest_cuda = ".".join(map(str, max(_NEWEST_CUDA.values())))
    raise Invalid(
        f"image.cuda={cuda!r}: SageMaker's newest driver is for CUDA {newest_cuda}: build the image for that or an older one"
    )


def transform_ami_version(cuda: str) -> str:
    """The same for batch transform, whose machine images have older drivers (`TransformAmiVersion`).

    Raises:
        Invalid: for a CUDA that the newest of them does not run.
    """
    if version(cuda)[0] > _TRANSFORM_MAJOR:
        raise Invalid(
            f"the image has CUDA {cuda}, and batch transform's newest driver is for CUDA {_TRANSFORM_MAJOR}: build it for "
            "that (TORCH_INDEX_URL), name a type without GPUs in transform.type, or use [async] in place of batch transform"
        )
    return _TRANSFORM_AMI


def version(cuda: str) -> tuple[int, int]:
    """`13.0` as numbers.

    Raises:
        Invalid: where it is none.
    """
    major, _, minor = cuda.partition(".")
    if not major.isdigit() or not minor.isdigit():
        raise Invalid(f"image.cuda={cuda!r}: allowed is a version such as 13.0, or cpu")
    return int(major), int(minor)


def runs_on(cuda: str, compute_capability: str) -> bool:
    """Whether a CUDA has code for GPUs of that compute capability (`7.5`)."""
    return version(cuda)[0] < 13 or version(compute_capability) >= _OLDEST_FOR_13
