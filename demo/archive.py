"""Packs `model.tar.gz` and unpacks it again, in SageMaker's layout.

    model.tar.gz
    ├── checkpoint.safetensors      the weights, at the root
    ├── checkpoint_2.safetensors
    └── code/
        ├── inference.py            what code/ holds
        └── ...

The same files always give the same bytes, so that an upload can be skipped when nothing has changed.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from checked_archive import checked_archive, unsafe_members
from demo_error import DemoError

# Weights hardly compress: more effort than the least buys time, not size.
_COMPRESSION = 1


def pack_model(archive: Path, code_dir: Path, weights: Iterable[Path]) -> None:
    """Write the archive.

    Args:
        archive: The file to write; its folder is made if missing.
        code_dir: Becomes `code/`; must hold inference.py. Caches and hidden files are left out.
        weights: Files that go to the archive's root.
    """
    if not (code_dir / "inference.py").is_file():
        raise DemoError(f"{code_dir} holds no inference.py")
    members = {path.name: path for path in weights}
    members |= {f"code/{path.relative_to(code_dir).as_posix()}": path for path in _sources(code_dir)}
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        archive.open("wb") as raw,
        gzip.GzipFile("", "wb", _COMPRESSION, raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, path in sorted(members.items()):
            _add(tar, name, path)


def unpack_model(archive: Path, model_dir: Path) -> None:
    """Unpack the archive as SageMaker does before it starts a container; what was in the folder is removed.

    Only files and folders below `model_dir` are written, with rights of our own: what else an archive holds is refused before
    anything is touched (`checked_archive`).
    """
    with _opened(archive) as (tar, members):
        shutil.rmtree(model_dir, ignore_errors=True)
        model_dir.mkdir(parents=True)
        for member in members:
            target = model_dir / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            if source is None:
                raise DemoError(f"{member.name} cannot be read")
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file)


def _sources(code_dir: Path) -> Iterable[Path]:
    for path in code_dir.rglob("*"):
        parts = path.relative_to(code_dir).parts
        cached = path.suffix == ".pyc" or "__pycache__" in parts
        hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and not cached and not hidden:
            yield path


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    # Neither the time nor the owner of the file: they differ between two checkouts of the same thing.
    member = tarfile.TarInfo(name)
    member.size = path.stat().st_size
    member.mode = 0o644
    with path.open("rb") as file:
        tar.addfile(member, file)


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[tarfile.TarFile, list[tarfile.TarInfo]]]:
    try:
        with checked_archive(archive) as (tar, members):
            for wrong in unsafe_members(members):
                raise DemoError(wrong)
            yield tar, members
    except DemoError as error:
        raise DemoError(f"{archive}: {error}") from error
