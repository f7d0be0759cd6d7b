"""Which devices each replica gets: a pure function of the devices that are there.

Runs in the engine, at the start. A device is named as torch names it: `cuda:2`, `cpu`; CPU devices may be numbered too
(`cpu:1`), which gives each a name of its own although they are the same cores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from multigpu_inference.errors import SettingsError

Devices: TypeAlias = tuple[str, ...]  # one per stage

_DEVICE = re.compile(r"cpu(:\d+)?|cuda:\d+")


def plan_placement(devices: Sequence[str], stages: int, num_replicas: int, placement: str = "ring") -> tuple[Devices, ...]:
    """Give each replica one device per stage.

    `ring`: replica i has stage s on device (i + s) mod n, so with two stages each device carries one of each kind.
    `same`: replica i has all its stages on device i mod n. More replicas than devices wrap around. A list such as
    `cuda:0,cuda:2;cuda:1,cuda:3` names the devices of each replica itself; more replicas than it has entries repeat it.

    Args:
        devices: The devices that may be used, such as `("cuda:0", "cuda:1")`.
        stages: Devices per replica, at least 1.
        num_replicas: Replicas, at least 1.
        placement: `ring`, `same`, or the list.

    Returns:
        For each replica its devices, stage by stage.

    Raises:
        SettingsError: where the list cannot be read, or names a device that is not there.
    """
    if stages < 1 or num_replicas < 1 or not devices:
        raise ValueError("a placement needs at least one device, one stage and one replica")
    n = len(devices)
    if placement == "ring":
        return tuple(tuple(devices[(i + s) % n] for s in range(stages)) for i in range(num_replicas))
    if placement == "same":
        return tuple((devices[i % n],) * stages for i in range(num_replicas))
    replicas = parse_placement(placement)
    for entry in replicas:
        _check(entry, devices, stages)
    return tuple(replicas[i % len(replicas)] for i in range(num_replicas))


def parse_placement(placement: str) -> tuple[Devices, ...]:
    """Read a list such as `cuda:0,cuda:2;cuda:1,cuda:3`: replicas by semicolon, their stages by comma.

    Raises:
        SettingsError: where it cannot be read.
    """
    replicas = tuple(tuple(device.strip() for device in entry.split(",")) for entry in placement.split(";") if entry.strip())
    wrong = next((device for entry in replicas for device in entry if not _DEVICE.fullmatch(device)), None)
    if wrong is not None or not replicas:
        raise SettingsError(
            f"MULTIGPU_PLACEMENT={placement!r}: allowed are ring, same, or devices such as cuda:0,cuda:1;cuda:1,cuda:0"
        )
    return replicas


def is_list(placement: str) -> bool:
    """Whether a placement names devices itself."""
    return placement not in ("ring", "same")


def _check(entry: Devices, devices: Sequence[str], stages: int) -> None:
    text = ",".join(entry)
    if len(entry) != stages:
        raise SettingsError(f"MULTIGPU_PLACEMENT: {text!r} names {len(entry)} devices, the model has {stages} stages")
    for device in entry:
        if not device.startswith("cpu") and device not in devices:
            raise SettingsError(f"MULTIGPU_PLACEMENT: there is no {device}; there are {', '.join(devices)}")
