"""Writes trained weights as the application loads them, in half of the bytes."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

NAMES = {"trimap": "checkpoint.safetensors", "matting": "checkpoint_2.safetensors"}


def write_weights(state: dict[str, Tensor], path: Path) -> None:
    """Write a state dict, its numbers rounded to float16; the application reads them as float32.

    Args:
        state: a network's.
        path: of the `.safetensors` file.
    """
    rounded = {
        key: (value.to(torch.float16) if value.is_floating_point() else value).cpu().contiguous()
        for key, value in state.items()
    }
    unfinished = path.with_suffix(".part")
    save_file(rounded, unfinished)
    os.replace(unfinished, path)
