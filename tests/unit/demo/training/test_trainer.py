from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from matting.weights import load_matting_network, load_trimap_network
from training.samples import load_samples
from training.trainer import Plan, Trainer, rate
from training.weight_files import NAMES, write_weights

CPU = torch.device("cpu")


def plan(network: str, steps: int) -> Plan:
    return Plan(network, steps, size=64 if network == "trimap" else 48, batch=2, seed=7, learning_rate=2e-3)


def samples(of: Plan, first_step: int = 0) -> list[dict[str, Tensor]]:
    return list(load_samples(of.network, seed=of.seed, steps=of.steps, size=of.size, batch=of.batch, first_step=first_step))


@pytest.mark.parametrize("network", ["trimap", "matting"])
def test_a_few_steps_on_one_batch_reduce_the_loss(network: str) -> None:
    trainer = Trainer(plan(network, 12), CPU)
    batch = samples(plan(network, 1))[0]
    losses = [trainer.take(batch) for _ in range(12)]
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize("network", ["trimap", "matting"])
def test_a_resumed_training_is_bit_identical(network: str, tmp_path: Path) -> None:
    of = plan(network, 4)
    unbroken, broken = Trainer(of, CPU), Trainer(of, CPU)
    batches = samples(of)
    for batch in batches:
        unbroken.take(batch)
    for batch in batches[:2]:
        broken.take(batch)
    broken.save(tmp_path / "checkpoint.pt")
    resumed = Trainer(of, CPU)
    resumed.resume(tmp_path / "checkpoint.pt")
    for batch in samples(of, first_step=resumed.step):
        resumed.take(batch)
    assert resumed.step == unbroken.step == 4
    for key, value in unbroken.averaged.items():
        assert torch.equal(value, resumed.averaged[key]), key
    for key, value in unbroken.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


def test_another_plans_checkpoint_is_refused(tmp_path: Path) -> None:
    Trainer(plan("matting", 4), CPU).save(tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="another training"):
        Trainer(plan("matting", 5), CPU).resume(tmp_path / "checkpoint.pt")


def test_saving_leaves_no_unfinished_file(tmp_path: Path) -> None:
    trainer = Trainer(plan("matting", 4), CPU)
    for _ in range(2):
        trainer.save(tmp_path / "checkpoint.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_written_weights_load_strictly_and_are_the_averaged_ones(tmp_path: Path) -> None:
    trainers = {network: Trainer(plan(network, 4), CPU) for network in NAMES}
    for network, trainer in trainers.items():
        write_weights(trainer.averaged, tmp_path / NAMES[network])
    loaded = load_trimap_network(tmp_path)
    assert (loaded.variant, loaded.out_channels) == ("small", 3)
    weight = loaded.state_dict()["stage1.rebnconvin.conv_s1.weight"]
    assert torch.allclose(weight, trainers["trimap"].averaged["stage1.rebnconvin.conv_s1.weight"], rtol=1e-3, atol=1e-6)
    assert load_matting_network(tmp_path).variant == "small"


def test_learning_rate_rises_then_falls_to_a_fiftieth() -> None:
    rates = [rate(step, 100) for step in range(101)]
    assert rates[0] < rates[2] < rates[4] == max(rates)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.02)
