"""A network out of a file, run by whatever the file is for.

    .onnx ──► ONNX Runtime       .pt2 ──► AOTInductor, or a program that torch.export saved       .pt, .pth ──► TorchScript

What comes back is called as the network itself would be: tensors on its device in, tensors on its device out. On a GPU its work
is issued on the current stream, as a stage's is.
"""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from multigpu_inference.config import Settings
from multigpu_inference.errors import ModelError
from multigpu_inference.one_line import one_line

if TYPE_CHECKING:
    import torch

Network: TypeAlias = Callable[..., Any]


def load_network(path: str | Path, device: torch.device | str) -> Network:
    """Load a network for a device.

    Args:
        path: A file whose ending says what it is: .onnx, .pt2, .pt or .pth.
        device: Where its inputs are and its outputs are to be.

    Returns:
        A callable that takes the network's inputs, [N, ...], and returns its output, or a tuple of them.

    Raises:
        ModelError: where it cannot be loaded there.
    """
    import torch

    path, device = Path(path), torch.device(device)
    loaders = {".onnx": _load_onnx, ".pt2": _load_exported, ".pt": _load_torchscript, ".pth": _load_torchscript}
    if path.suffix not in loaders:
        raise ModelError(f"{path.name}: the ending of a network's file is one of {', '.join(loaders)}")
    return loaders[path.suffix](path, device)


def _load_onnx(path: Path, device: torch.device) -> Network:
    from multigpu_inference.runtimes.onnx_network import OnnxNetwork

    return OnnxNetwork(path, device)


def _load_torchscript(path: Path, device: torch.device) -> Network:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the format is the toolkit's
            module: Network = torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ModelError(f"{path.name} is no TorchScript model; one of another kind needs a model_fn") from error
    return module


def _load_exported(path: Path, device: torch.device) -> Network:
    """Code that AOTInductor compiled, or a program that `torch.export` saved."""
    import torch

    compiled = is_compiled(path)
    if compiled and (other := _compiled_for(path)) not in (None, device.type):
        raise ModelError(f"{path.name} is code for {other}, and is to run on {device}: take it out, or serve it on {other}")
    try:
        if compiled:
            from torch._inductor.package.package import load_package

            index = -1 if device.type == "cpu" or device.index is None else device.index  # a CPU has none there
            # As many at a time as a stage has streams: with one runner they would take turns.
            runners = Settings.from_env(os.environ).engine.streams_per_stage
            package: Network = load_package(str(path), num_runners=runners, device_index=index)
            return package
        program = torch.export.load(path)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(device))
        module: Network = program.module()
        return module
    except Exception as error:
        kind = "AOTInductor package" if compiled else "program of torch.export"
        raise ModelError(f"{path.name} is no {kind} for {device} on this machine: {one_line(error)}") from error


def is_compiled(path: Path) -> bool:
    """Whether a .pt2 archive holds compiled code.

    Raises:
        ModelError: where it is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/data/aotinductor/" in f"/{name}" for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ModelError(f"{path.name} is no .pt2 archive") from error


def _compiled_for(path: Path) -> str | None:
    """What kind of device a package's code is for, such as "cpu"; None where it does not say."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if "/data/aotinductor/" in f"/{name}" and name.endswith("_metadata.json"):
                kind: str | None = json.loads(archive.read(name)).get("AOTI_DEVICE_KEY")
                return kind
    return None
