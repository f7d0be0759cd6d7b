"""An endless, seeded series of training samples, composed in the loader's worker processes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.composition import compose
from training.phases import divide
from training.target import matting_sample, trimap_sample

NETWORKS = ("trimap", "matting")
_PARTS = 2  # matting samples that are cut out of one picture: composing it costs more than a step on it
_PICTURE_PER_PART = 1.4  # how much larger it is than they are

# The parts of one picture follow one another.
_compose_once = lru_cache(maxsize=1)(compose)


class Samples(Dataset[dict[str, Tensor]]):
    """Sample number `index` of one network's training; nothing but the arguments decides what it is."""

    def __init__(self, network: str, seed: int, size: int) -> None:
        """Choose the network, `trimap` or `matting`, the set's seed and the samples' side in pixels."""
        self._network, self._seed, self._size = network, seed, size

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Compose one sample."""
        if self._network == "trimap":
            return trimap_sample(compose(self._seed, index, self._size))
        picture = _compose_once(self._seed, index // _PARTS, int(self._size * _PICTURE_PER_PART))
        return matting_sample(picture, np.random.default_rng((self._seed, index, 1)), self._size)


def load_samples(
    network: str, *, seed: int, steps: int, size: int, batch: int, first_step: int = 0, workers: int = 0
) -> Iterator[dict[str, Tensor]]:
    """Batches of the steps from `first_step` on: a resumed training gets what it would have got.

    Args:
        network: `trimap` or `matting`.
        seed: of the set.
        steps: of the whole training.
        size: its side in pixels, in the end.
        batch: its batch, at first.
        first_step: the first one wanted.
        workers: processes that compose; 0 composes here.
    """
    for phase in divide(network, steps, size, batch):
        begin = max(first_step, phase.first_step)
        if begin >= phase.end_step:
            continue
        first = phase.first_sample + (begin - phase.first_step) * phase.batch
        yield from DataLoader(
            Samples(network, seed, phase.size),
            batch_size=phase.batch,
            sampler=range(first, first + (phase.end_step - begin) * phase.batch),
            num_workers=workers,
            prefetch_factor=3 if workers else None,
            worker_init_fn=_use_one_thread,
        )


def _use_one_thread(_: int) -> None:
    torch.set_num_threads(1)
