"""The file that a model folder's model lies in where no script says so. As the PyTorch toolkit finds it."""

from __future__ import annotations

from pathlib import Path

from multigpu_inference.errors import ModelError

_NAMED = "model.pt"
_SUFFIXES = (".pt", ".pth", ".pt2", ".onnx")


def find_model_file(model_dir: Path) -> Path:
    """model.pt, or the only file that could be a model.

    Raises:
        ModelError: where there is none, or more than one.
    """
    named = model_dir / _NAMED
    if named.is_file():
        return named
    found = sorted(path for path in model_dir.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "there is none"
        suffixes = f"{', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
        raise ModelError(f"without a model_fn the model folder must have {_NAMED}, or one {suffixes} file: {names}")
    return found[0]
