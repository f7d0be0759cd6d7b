"""The published classes: taken out of clones of their repositories at fixed commits, and imported one commit at a time.

Nothing of them is in this repository. Both are under licences of their own (U-2-Net: Apache 2.0, FBA Matting: MIT).
"""

from __future__ import annotations

import contextlib
import importlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class ComparisonError(Exception):
    """The comparison cannot be made. Its text is one line."""


class Source(NamedTuple):
    """A commit of a repository, and what of it is needed."""

    repository: str
    commit: str
    paths: tuple[str, ...]


U2NET = Source("https://github.com/xuebinqin/U-2-Net", "ac7e1c817ecab7c7dff5ce6b1abba61cd213ff29", ("model",))
# The last one whose layers standardise their weights as the checkpoint's were when it was trained and released.
FBA_RELEASED = Source(
    "https://github.com/MarcoForte/FBA_Matting", "bf80826d7ce34e0cb61e8736ab689310498efbfe", ("networks", "dataloader.py")
)
# The newest: another formula, folded into the weights by each switch to evaluation mode.
FBA_HEAD = FBA_RELEASED._replace(commit="8dd100d760186150710510ee8d78ed916cdb17a4", paths=("networks",))


@contextlib.contextmanager
def checked_out(clone: Path, source: Source) -> Iterator[None]:
    """Make a commit's modules importable while the context lasts; the clone's own work tree is left alone.

    Args:
        clone: a clone of the source's repository, with its history.
        source: what to take out of it.

    Raises:
        ComparisonError: there is no such clone, or it lacks the commit.
    """
    command = ["git", "-C", str(clone), "archive", "--format=tar", source.commit, *source.paths]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[:1] or ["git archive failed"]
        raise ComparisonError(
            f"{clone}: expected a clone of {source.repository} with commit {source.commit[:7]} in its history, "
            f"found: {reason[0]}"
        )
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        roots = {path.stem for path in Path(folder).iterdir()}
        sys.path.insert(0, folder)
        try:
            yield
        finally:
            sys.path.remove(folder)
            # Two commits have modules of the same names.
            for name in [name for name in sys.modules if name.split(".")[0] in roots]:
                del sys.modules[name]


def u2net_class(variant: str) -> Any:
    """The published class of a variant of ours; takes the input's channels and the output's."""
    module = importlib.import_module("model.u2net")
    return {"full": module.U2NET, "small": module.U2NETP}[variant]


def released_fba() -> Any:
    """The network as it was released, on the CPU: `build_model` itself asks for CUDA."""
    models = importlib.import_module("networks.models")
    builder = models.ModelBuilder()
    with contextlib.redirect_stdout(io.StringIO()):
        return models.MattingModule(builder.build_encoder("resnet50_GN_WS"), builder.build_decoder("fba_decoder"))


def fba_fusion() -> Any:
    """The released function that fuses alpha, picture, foreground and background, in this order."""
    return importlib.import_module("networks.models").fba_fusion


def head_fba() -> Any:
    """The newest network, on the CPU."""
    models = importlib.import_module("networks.models")
    with contextlib.redirect_stdout(io.StringIO()):
        return models.MattingModule(models.fba_encoder(), models.fba_decoder())


def with_opencv(name: str) -> ModuleType | None:
    """One of FBA's modules that need OpenCV; None where that is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "cv2":
            raise
        return None
