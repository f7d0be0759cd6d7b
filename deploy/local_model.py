"""The model folder of a local endpoint: `model.tar.gz` unpacked as SageMaker does it, and nobody may write to it."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import source_paths  # noqa: F401
from archive import unpack_model
from demo_error import DemoError
from deploy_error import Invalid

_ALL_MAY_READ = 0o555


def unpack_read_only(archive: Path, model_dir: Path) -> None:
    """Unpack an archive; what was in the folder is removed.

    Args:
        archive: A model.tar.gz.
        model_dir: What the container sees as /opt/ml/model.

    Raises:
        Invalid: it cannot be unpacked.
    """
    _remove(model_dir)
    try:
        unpack_model(archive, model_dir)
    except (DemoError, tarfile.TarError, EOFError, OSError) as error:
        raise Invalid(f"{archive} cannot be unpacked into {model_dir}: {error}") from error
    for path in (model_dir, *model_dir.rglob("*")):
        path.chmod(path.stat().st_mode & _ALL_MAY_READ | (0o111 if path.is_dir() else 0))


def _remove(model_dir: Path) -> None:
    # Folders of an earlier run: what lies in them can be removed only once they may be written to again.
    for folder, _, _ in os.walk(model_dir):
        os.chmod(folder, 0o755)
    if model_dir.exists():
        shutil.rmtree(model_dir)
