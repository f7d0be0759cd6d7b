"""The training loop of one network: a step, an averaged copy of the weights, a checkpoint to go on from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from matting.fba import FBA
from matting.u2net import U2Net
from matting.weights import standardise_weights
from training.loss import matting_loss, trimap_loss
from training.target import known_of, rgb_of, trimap_input

_DECAY = 1e-4
_LARGEST_GRADIENT = 1.0
_WARM_UP = 0.04  # share of the steps in which the learning rate rises
_FALL_FROM = 0.6  # share of the steps after which it falls


@dataclass(frozen=True)
class Plan:
    """What a training is, and what two runs must share for one to go on from the other."""

    network: str
    steps: int
    size: int
    batch: int
    seed: int
    learning_rate: float
    precision: str = "float32"


class Trainer:
    """Holds a network in training, and all that its next step depends on."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        """Start with fresh weights."""
        torch.manual_seed(plan.seed)
        self.plan, self.device, self.step = plan, device, 0
        self.seconds = 0.0  # spent on it so far, by all runs
        self.network: nn.Module = U2Net("small", out_channels=3) if plan.network == "trimap" else FBA("small")
        if plan.network == "matting":
            _start_in_the_middle(self.network)
        # Twice, as one call with both has no type.
        self.network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.train()
        self.averaged = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        self._optimiser = torch.optim.AdamW(self.network.parameters(), lr=plan.learning_rate, weight_decay=_DECAY)

    def take(self, sample: dict[str, Tensor]) -> float:
        """Do one step on a batch; return its loss."""
        sample = {key: value.to(self.device, non_blocking=True) for key, value in sample.items()}
        for group in self._optimiser.param_groups:
            group["lr"] = self.plan.learning_rate * rate(self.step, self.plan.steps)
        loss = self._loss(sample)
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT)
        self._optimiser.step()
        self.step += 1
        self._average()
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Write a checkpoint; a reader, or a kill, finds the old one or the new one."""
        content = {
            "plan": asdict(self.plan),
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "averaged": self.averaged,
            "optimiser": self._optimiser.state_dict(),
        }
        unfinished = path.with_suffix(".part")
        torch.save(content, unfinished)
        os.replace(unfinished, path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same plan.

        Raises:
            ValueError: it is another plan's.
        """
        content: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if content["plan"] != asdict(self.plan):
            raise ValueError(f"{path}: is of another training, {content['plan']}; expected {asdict(self.plan)}")
        self.network.load_state_dict(content["network"])
        self._optimiser.load_state_dict(content["optimiser"])
        self.averaged, self.step, self.seconds = content["averaged"], content["step"], content["seconds"]

    def _loss(self, sample: dict[str, Tensor]) -> Tensor:
        with self._precision():
            if self.plan.network == "trimap":
                pictures = trimap_input(sample["photo"]).contiguous(memory_format=torch.channels_last)
                return trimap_loss(self.network(pictures), sample["classes"])
            photo = rgb_of(sample["photo"])
            # The application standardises once, at load; here the weights still change.
            weights = standardise_weights(dict(self.network.named_parameters()))
            estimate: Tensor = functional_call(self.network, weights, (photo, known_of(sample["classes"])))
            return matting_loss(estimate.float(), sample, photo)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        half = self.plan.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            yield

    def _average(self) -> None:
        keep = min(0.98, (self.step + 1) / (self.step + 20))
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.averaged[key].lerp_(value.detach(), 1 - keep)
            else:
                self.averaged[key].copy_(value)


def rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: a short rise, a plain, then half a cosine down to 2 %."""
    warm = max(1, round(steps * _WARM_UP))
    if step < warm:
        return (step + 1) / warm
    fall = max(0.0, (step / steps - _FALL_FROM) / (1 - _FALL_FROM))
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall))


def _start_in_the_middle(network: nn.Module) -> None:
    """Start with every alpha near one half: outside [0, 1] the network's own alpha has no slope."""
    state = network.state_dict()
    state["decoder.conv_up4.4.weight"].mul_(0.3)
    state["decoder.conv_up4.4.bias"].zero_()
    state["decoder.conv_up4.4.bias"][0] = 0.5
