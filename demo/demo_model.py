"""The model folder that is served: the demo's, by way of a real `model.tar.gz`, or one of the user's own."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from archive import pack_model, unpack_model
from demo_error import DemoError
from multigpu_inference.errors import ModelError
from multigpu_inference.model_file import find_model_file

ROOT = Path(__file__).resolve().parent.parent
PHOTOS = ROOT / "demo" / "photos"
WEIGHTS = ROOT / "demo" / "weights"


def prepare_model(archive: Path, model_dir: Path) -> None:
    """Pack the demo's trained weights with `code/` into `archive`, unpack that into `model_dir`.

    Args:
        archive: The model.tar.gz to write.
        model_dir: What SageMaker would mount at /opt/ml/model.
    """
    pack_model(archive, ROOT / "code", sorted(WEIGHTS.glob("*.safetensors")))
    unpack_model(archive, model_dir)


def take_model(given: Path, base_dir: Path) -> None:
    """Put a user's model where the endpoint looks for it: `base_dir/model`.

    Args:
        given: A model.tar.gz, which is unpacked, or a folder such as one unpacks to, which is served where it is.
        base_dir: Stands for /opt/ml.

    Raises:
        DemoError: it is neither, or has neither a script in `code/` nor a model that needs none.
    """
    model = base_dir / "model"
    if given.is_file():
        if model.is_symlink():
            model.unlink()
        try:
            unpack_model(given, model)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DemoError(f"MODEL={given}: it cannot be unpacked: {error}") from error
    elif given.is_dir():
        base_dir.mkdir(parents=True, exist_ok=True)
        _remove(model)
        model.symlink_to(given.resolve())
    else:
        raise DemoError(f"MODEL={given}: there is no such folder or model.tar.gz")
    if not any((model / "code").glob("*.py")):
        try:
            find_model_file(model)
        except ModelError as error:
            raise DemoError(f"MODEL={given}: there is no script in its folder code/; {error}") from error


def _remove(model: Path) -> None:
    if model.is_symlink():
        model.unlink()
    elif model.exists():
        shutil.rmtree(model)
