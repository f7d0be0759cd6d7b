"""The model folder as the container would find it: below a folder that stands for /opt/ml."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from multigpu_inference.config import DEFAULT_PROGRAM, Settings
from multigpu_inference.errors import ModelError, SettingsError
from multigpu_inference.model_file import find_model_file

_BASE_DIR = "SAGEMAKER_BASE_DIR"


@contextmanager
def model_folder(given: Path, environ: Mapping[str, str]) -> Iterator[tuple[dict[str, str], Settings]]:
    """Where the model is, for the length of the block: variables for all processes, and the settings with them.

    Args:
        given: The folder that a model.tar.gz unpacks to.
        environ: The settings.

    Raises:
        SettingsError: where it is no such folder, or a setting is not allowed.
    """
    if given.is_file():
        raise SettingsError(f"{given} is a file: unpack the archive and name its folder")
    if not given.is_dir():
        raise SettingsError(f"{given}: there is no such folder")
    with tempfile.TemporaryDirectory(prefix="plan-ml-") as base_dir:
        (Path(base_dir) / "model").symlink_to(given.resolve())
        own = {_BASE_DIR: base_dir}
        settings = Settings.from_env({**environ, **own})
        _refuse_without_model(given, settings)
        yield own, settings


def _refuse_without_model(given: Path, settings: Settings) -> None:
    if settings.model.script.is_file():
        return
    missing = f"{given} has no code/{settings.model.program}"
    if settings.model.program != DEFAULT_PROGRAM:
        raise SettingsError(missing)
    try:
        find_model_file(given)
    except ModelError as error:
        raise SettingsError(f"{missing}; {error}") from None
