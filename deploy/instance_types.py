"""Instance types with GPUs: what is in them and what they cost.

Prices are those of a real-time endpoint in us-east-1 in USD an hour, second-hand, as of `PRICES_AS_OF`. A deployment asks
AWS's price list first (`price_list.py`) and says which of the two it shows.
"""

from __future__ import annotations

from dataclasses import dataclass

PRICES_AS_OF = "2026-11"
TURING, AMPERE, ADA, HOPPER = "7.5", "8.0", "8.9", "9.0"
GA10X = "8.6"


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One type.

    Attributes:
        name: As SageMaker calls it.
        gpus: How many.
        gpu: Which.
        gpu_gib: Memory of each.
        compute_capability: Of the GPUs, as CUDA numbers it.
        vcpus: Of the machine.
        memory_gib: Of the machine.
        own_disk: Whether it has a disk of its own (NVMe); SageMaker then refuses a volume's size.
        usd_per_hour: For one instance; None: not known here.
    """

    name: str
    gpus: int
    gpu: str
    gpu_gib: int
    compute_capability: str
    vcpus: int
    memory_gib: int
    own_disk: bool
    usd_per_hour: float | None


INSTANCE_TYPES = {
    kind.name: kind
    for kind in (
        InstanceType("ml.g4dn.12xlarge", 4, "T4", 16, TURING, 48, 192, True, 4.89),
        InstanceType("ml.g5.12xlarge", 4, "A10G", 24, GA10X, 48, 192, True, 7.09),
        InstanceType("ml.g5.24xlarge", 4, "A10G", 24, GA10X, 96, 384, True, 10.18),
        InstanceType("ml.g5.48xlarge", 8, "A10G", 24, GA10X, 192, 768, True, 20.36),
        InstanceType("ml.g6.12xlarge", 4, "L4", 24, ADA, 48, 192, True, 5.752),
        InstanceType("ml.g6.24xlarge", 4, "L4", 24, ADA, 96, 384, True, 8.344),
        InstanceType("ml.g6.48xlarge", 8, "L4", 24, ADA, 192, 768, True, 16.688),
        InstanceType("ml.g6e.12xlarge", 4, "L40S", 48, ADA, 48, 384, True, 13.12),
        InstanceType("ml.g6e.24xlarge", 4, "L40S", 48, ADA, 96, 768, True, 18.83),
        InstanceType("ml.g6e.48xlarge", 8, "L40S", 48, ADA, 192, 1536, True, 37.66),
        InstanceType("ml.p4d.24xlarge", 8, "A100", 40, AMPERE, 96, 1152, True, 25.25),
        InstanceType("ml.p5.48xlarge", 8, "H100", 80, HOPPER, 192, 2048, True, 63.30),
    )
}
# The families of SageMaker's types that have an NVIDIA GPU; a type of these that is not in the table has an unknown number.
_GPU_FAMILIES = ("ml.g", "ml.p")


def has_gpu(name: str) -> bool:
    """Whether an instance type has NVIDIA GPUs, whether or not it is in the table."""
    return name.startswith(_GPU_FAMILIES)


def has_own_disk(name: str) -> bool:
    """Whether a type is known to have a disk of its own."""
    return name in INSTANCE_TYPES and INSTANCE_TYPES[name].own_disk


def known_gpus(name: str) -> int | None:
    """How many GPUs a type has; None where it has some and the table does not say how many."""
    if name in INSTANCE_TYPES:
        return INSTANCE_TYPES[name].gpus
    return None if has_gpu(name) else 0
