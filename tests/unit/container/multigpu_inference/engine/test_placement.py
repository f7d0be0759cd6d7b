from __future__ import annotations

from collections import Counter

import pytest

from multigpu_inference.engine.placement import is_list, parse_placement, plan_placement
from multigpu_inference.errors import SettingsError


def gpus(count: int) -> tuple[str, ...]:
    return tuple(f"cuda:{i}" for i in range(count))


def numbers(placement: tuple[tuple[str, ...], ...]) -> list[tuple[int, ...]]:
    """The GPUs' numbers alone, to be read as a table."""
    return [tuple(int(device.removeprefix("cuda:")) for device in replica) for replica in placement]


@pytest.mark.parametrize(
    ("devices", "stages", "expected"),
    [
        (1, 1, [(0,)]),
        (1, 2, [(0, 0)]),
        (1, 3, [(0, 0, 0)]),
        (2, 1, [(0,), (1,)]),
        (2, 2, [(0, 1), (1, 0)]),
        (2, 3, [(0, 1, 0), (1, 0, 1)]),
        (4, 1, [(0,), (1,), (2,), (3,)]),
        (4, 2, [(0, 1), (1, 2), (2, 3), (3, 0)]),
        (4, 3, [(0, 1, 2), (1, 2, 3), (2, 3, 0), (3, 0, 1)]),
        (8, 2, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7), (7, 0)]),
    ],
)
def test_ring_gives_each_stage_the_next_device(devices: int, stages: int, expected: list[tuple[int, ...]]) -> None:
    assert numbers(plan_placement(gpus(devices), stages, devices)) == expected


@pytest.mark.parametrize(
    ("devices", "stages", "expected"),
    [
        (1, 2, [(0, 0)]),
        (2, 2, [(0, 0), (1, 1)]),
        (4, 1, [(0,), (1,), (2,), (3,)]),
        (4, 3, [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)]),
    ],
)
def test_same_keeps_a_replica_on_one_device(devices: int, stages: int, expected: list[tuple[int, ...]]) -> None:
    assert numbers(plan_placement(gpus(devices), stages, devices, "same")) == expected


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("devices", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("placement", ["ring", "same"])
def test_as_many_replicas_as_devices_give_each_device_each_stage_once(devices: int, stages: int, placement: str) -> None:
    replicas = plan_placement(gpus(devices), stages, devices, placement)
    for stage in range(stages):
        assert Counter(replica[stage] for replica in replicas) == Counter(gpus(devices))


@pytest.mark.parametrize("devices", [2, 3, 4, 8])
def test_ring_gives_two_stages_devices_of_their_own(devices: int) -> None:
    assert all(first != second for first, second in plan_placement(gpus(devices), 2, devices))


@pytest.mark.parametrize("placement", ["ring", "same", "cuda:0,cuda:1;cuda:1,cuda:0;cuda:2,cuda:3;cuda:3,cuda:2"])
def test_more_replicas_than_devices_wrap_around(placement: str) -> None:
    once = plan_placement(gpus(4), 2, 4, placement)
    assert plan_placement(gpus(4), 2, 10, placement) == (*once, *once, *once[:2])


@pytest.mark.parametrize("placement", ["ring", "same"])
def test_fewer_replicas_than_devices_use_the_first(placement: str) -> None:
    assert plan_placement(gpus(8), 2, 3, placement) == plan_placement(gpus(8), 2, 8, placement)[:3]


def test_a_list_is_taken_as_it_stands() -> None:
    expected = (("cuda:0", "cuda:2"), ("cuda:1", "cuda:3"))
    assert plan_placement(gpus(4), 2, 2, "cuda:0,cuda:2;cuda:1,cuda:3") == expected


def test_a_list_may_have_spaces_and_a_last_semicolon() -> None:
    assert parse_placement(" cuda:0 , cpu ; cuda:1,cpu; ") == (("cuda:0", "cpu"), ("cuda:1", "cpu"))


@pytest.mark.parametrize("device", ["cpu", "cpu:3"])
def test_a_list_may_put_any_stage_on_the_cpu(device: str) -> None:
    assert plan_placement(gpus(1), 2, 1, f"cuda:0,{device}") == (("cuda:0", device),)


def test_cpu_devices_are_placed_like_any_others() -> None:
    assert plan_placement(("cpu:0", "cpu:1"), 2, 1) == (("cpu:0", "cpu:1"),)


@pytest.mark.parametrize("placement", ["cuda:0,cuda:4", "cuda:00,cuda:1"])
def test_a_device_that_is_not_there_is_refused(placement: str) -> None:
    with pytest.raises(SettingsError, match=r"MULTIGPU_PLACEMENT: there is no cuda:(4|00); there are cuda:0, cuda:1"):
        plan_placement(gpus(2), 2, 1, placement)


def test_an_entry_that_no_replica_uses_is_checked_too() -> None:
    with pytest.raises(SettingsError, match="there is no cuda:7"):
        plan_placement(gpus(2), 1, 1, "cuda:0;cuda:7")


@pytest.mark.parametrize(("placement", "count"), [("cuda:0", 1), ("cuda:0,cuda:1,cuda:0", 3)])
def test_another_number_of_devices_than_stages_is_refused(placement: str, count: int) -> None:
    with pytest.raises(SettingsError, match=f"names {count} devices, the model has 2 stages"):
        plan_placement(gpus(2), 2, 1, placement)


@pytest.mark.parametrize(
    "placement", ["rubbish", "Ring", "", ";", "cuda", "cuda:", "cuda:0,", "cuda:-1", "0,1", "cuda:0;;x", "cpu:", "mps"]
)
def test_what_is_no_placement_is_refused_with_what_is_allowed(placement: str) -> None:
    with pytest.raises(SettingsError, match="allowed are ring, same, or devices such as") as error:
        plan_placement(gpus(2), 1, 1, placement)
    assert f"MULTIGPU_PLACEMENT={placement!r}" in str(error.value)


@pytest.mark.parametrize(("devices", "stages", "replicas"), [((), 1, 1), (("cpu",), 0, 1), (("cpu",), 1, 0)])
def test_nothing_to_place_is_a_mistake_of_the_caller(devices: tuple[str, ...], stages: int, replicas: int) -> None:
    with pytest.raises(ValueError, match="at least one device, one stage and one replica"):
        plan_placement(devices, stages, replicas)


def test_every_placement_but_two_is_a_list() -> None:
    assert not is_list("ring")
    assert not is_list("same")
    assert is_list("cuda:0")
