"""Checkpoints to networks: finds a model folder's two files, and builds the variant their shapes tell.

Runs in the replica workers, once, while a replica loads. Nothing is unpickled beyond tensors
(`weights_only`).

The public checkpoints have licences of their own. FBA matting's forbids commercial use, which a line in the log says whenever
a file of its name is loaded.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from matting import fba, u2net
from matting.fba import FBA
from matting.u2net import U2Net

# In this order, the first that is there: what a fine-tuned model is saved as, then the public checkpoints'
# own names.
TRIMAP_FILES = ("checkpoint.safetensors", "checkpoint.pth", "u2net.pth", "u2netp.pth")
_PUBLISHED_FBA = "FBA.pth"
MATTING_FILES = ("checkpoint_2.safetensors", "checkpoint_2.pth", _PUBLISHED_FBA)

_WRAPPERS = ("module.", "model.")  # prefixes that DataParallel and training frameworks leave on every key

_log = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)


class CheckpointError(Exception):
    """A checkpoint is missing or does not fit its network. Its text is one line: file, expected, found."""


def load_trimap_network(model_dir: str | Path) -> U2Net:
    """Load stage 1's network: either variant, with one channel (saliency) or three (trimap).

    Args:
        model_dir: folder with one of `TRIMAP_FILES`.

    Returns:
        The network on the CPU in float32, in evaluation mode, without gradients.

    Raises:
        CheckpointError: there is no such file, or it does not fit.
    """
    path = find_checkpoint(model_dir, TRIMAP_FILES)
    state = read_state_dict(path)
    inner = _channels(path, state, "stage1.rebnconv1.conv_s1.weight", "U2-Net")
    out = _channels(path, state, "outconv.weight", "U2-Net")
    variants = {sizes[0].mid_channels: name for name, sizes in u2net.VARIANTS.items()}
    if inner not in variants or out not in (1, 3):
        raise CheckpointError(
            f"{path}: expected a U2-Net with {_either(variants)} inner channels and 1 or 3 outputs, "
            f"found {inner} inner channels and {out} outputs"
        )
    return _load(path, state, U2Net(variants[inner], out))


def load_matting_network(model_dir: str | Path) -> FBA:
    """Load stage 2's network, with its convolutions standardised.

    The published weights, `FBA.pth`, are not for commercial use.

    Args:
        model_dir: folder with one of `MATTING_FILES`.

    Returns:
        The network on the CPU in float32, in evaluation mode, without gradients.

    Raises:
        CheckpointError: there is no such file, or it does not fit.
    """
    path = find_checkpoint(model_dir, MATTING_FILES)
    if path.name == _PUBLISHED_FBA:
        _log.warning(
            "%s: the weights that FBA matting's authors published under this name are not for commercial use", path.name
        )
    state = read_state_dict(path)
    stem = _channels(path, state, "encoder.conv1.weight", "FBA matting")
    variants = {sizes.stem: name for name, sizes in fba.VARIANTS.items()}
    if stem not in variants:
        raise CheckpointError(f"{path}: expected an FBA matting network with {_either(variants)} stem channels, found {stem}")
    return _load(path, standardise_weights(state), FBA(variants[stem]))


def find_checkpoint(model_dir: str | Path, names: tuple[str, ...]) -> Path:
    """Return the first of `names` that is a file in `model_dir`; CheckpointError where none is."""
    folder = Path(model_dir)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: expected a folder with {_either(names)}, found none")
    found = sorted(path.name for path in folder.iterdir() if path.is_file())
    raise CheckpointError(f"{folder}: expected {_either(names)}, found {', '.join(found[:10]) or 'no files'}")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint: a state dict, bare or under `state_dict`, its keys freed of wrappers' prefixes.

    Args:
        path: a `.safetensors` file, or one that `torch.save` wrote.

    Returns:
        Tensors by key, on the CPU, floating-point ones as float32.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # here, as the other files need no such package

            content: object = load_file(path)
        else:
            _refuse_bomb(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise nearly anything, some of it over many lines
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise CheckpointError(f"{path}: expected a state dict of tensors only, found: {reason[0][:200]}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: expected a state dict of tensors, found a {type(content).__name__}")
    state = {_unwrapped(str(key)): value for key, value in content.items()}
    for key, value in state.items():
        if value.layout is not torch.strided:
            raise CheckpointError(f"{path}: expected dense tensors, found that {key} is sparse")
        if value.nbytes > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: expected tensors that are stored, found that {key} repeats its elements")
    if sum(value.nbytes for value in state.values()) > path.stat().st_size:
        raise CheckpointError(f"{path}: expected tensors that are stored, found that they repeat each other's elements")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _refuse_bomb(path: Path) -> None:
    """Refuse a file that unpacks to more than it is. What `torch.save` writes is a zip file without compression, or none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("compressed entries, which torch.save does not write")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("entries that are larger than the file")


def standardise_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Standardise an FBA checkpoint's convolutions: zero mean and unit deviation in each output channel.

    Pure, and for a checkpoint as it was saved: what it returns must not go through it again.

    Args:
        state_dict: an FBA network's state dict.

    Returns:
        A new state dict; all but the convolution weights are the same tensors as before.
    """
    # The formula is the one the checkpoint was trained and released under (unbiased variance, the small
    # constant added to the deviation). Later versions of the published code use another (biased variance,
    # constant under the root) and apply it again at each switch to evaluation mode, which changes the
    # weights every time.
    result = dict(state_dict)
    for key, weight in state_dict.items():
        # The head works on colours rather than on normalised features: it alone was never standardised.
        if weight.ndim != 4 or key.startswith("decoder.conv_up4."):
            continue
        centred = weight - weight.mean(dim=(1, 2, 3), keepdim=True)
        deviation = (weight.flatten(1).var(dim=1, unbiased=True) + 1e-12).sqrt() + 1e-5
        result[key] = centred / deviation.view(-1, 1, 1, 1)
    return result


def _load(path: Path, state: dict[str, Tensor], network: Network) -> Network:
    """Load strictly, with one line of error where torch would write one for each key."""
    expected = network.state_dict()
    differences = [f"{key} is missing" for key in expected if key not in state]
    differences += [f"{key} is not expected" for key in state if key not in expected]
    differences += [
        f"{key} is {list(state[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    if differences:
        name = type(network).__name__
        raise CheckpointError(
            f"{path}: expected a {name} state dict of {len(expected)} keys, found {len(state)}; "
            f"{len(differences)} differ, first: {differences[0]}"
        )
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)


def _channels(path: Path, state: dict[str, Tensor], key: str, network: str) -> int:
    """The output channels of one convolution, which tell the variants apart."""
    if key not in state:
        sample = ", ".join(sorted(state)[:3]) or "no keys"
        raise CheckpointError(f"{path}: expected a {network} state dict with {key}, found {len(state)} keys such as {sample}")
    return state[key].shape[0] if state[key].ndim else 0


def _unwrapped(key: str) -> str:
    while key.startswith(_WRAPPERS):
        key = key.removeprefix("module.").removeprefix("model.")
    return key


def _either(names: Iterable[object]) -> str:
    *most, last = (str(name) for name in names)
    return f"{', '.join(most)} or {last}" if most else last
