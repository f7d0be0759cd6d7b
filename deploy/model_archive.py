"""model.tar.gz: packed from `code/` and weights, and looked through before it is uploaded.

A wrong layout is found by SageMaker only when the container starts, minutes later and on rented machines.
"""

from __future__ import annotations

import ast
import hashlib
import os
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import source_paths  # noqa: F401
from archive import pack_model
from checked_archive import UnsafeArchive, checked_archive, unsafe_members
from demo_error import DemoError
from deploy_error import Invalid
from deploy_settings import ROOT, DeploySettings
from multigpu_inference.config import DEFAULT_PROGRAM
from multigpu_inference.errors import ModelError
from multigpu_inference.model_file import choose_model_file

WEIGHTS = (".bin", ".ckpt", ".onnx", ".pt", ".pt2", ".pth", ".safetensors")
# The default volume holds no more, unpacked beside packed.
_LARGEST_BYTES = 30 << 30
_SCRIPT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelArchive:
    """An archive that may be deployed.

    Attributes:
        path: The file.
        digest: SHA-256, in hex.
        packed_bytes: Its size.
        weights_bytes: The size of the weights in it, unpacked.
        stages: Devices that a replica gets, as the script says at its top.
    """

    path: Path
    digest: str
    packed_bytes: int
    weights_bytes: int
    stages: int


def prepare_archive(settings: DeploySettings) -> ModelArchive:
    """Pack the archive, or take the one that the settings name, and look through it.

    Raises:
        Invalid: with everything that is wrong with it.
    """
    program = settings.environment.get("SAGEMAKER_PROGRAM", "inference.py")
    path = settings.model.archive
    if path is None:
        return _pack(settings, program)
    if not path.is_file():
        raise Invalid(f"model.archive={str(path)!r}: there is no such file")
    return read_archive(path, program)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pack(settings: DeploySettings, program: str) -> ModelArchive:
    """Pack under a name of its own content: what one command is about to upload, another one must not write over."""
    code, names = settings.model.code, [path.name for path in settings.model.weights]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid(f"model.weights: {', '.join(twice)} comes from two folders, and all of them go to the root: rename one")
    linked = next((path for path in code.rglob("*") if path.is_symlink() and path.is_dir()), None)
    if linked is not None:
        raise Invalid(f"model.code: {linked} is a link to a folder, which is not packed: copy the folder")
    folder = ROOT / "build" / "deploy" / settings.name
    with TemporaryDirectory(prefix="packing-", dir=_made(folder)) as place:
        packed = Path(place) / "model.tar.gz"
        try:
            pack_model(packed, code, settings.model.weights)
        except (DemoError, OSError) as error:
            raise Invalid(f"model.code={str(code)!r}: {error}") from error
        archive = read_archive(packed, program)
        path = folder / f"model-{archive.digest[:16]}.tar.gz"
        os.replace(packed, path)
    for older in folder.glob("model-*.tar.gz"):
        if older != path:
            older.unlink(missing_ok=True)
    return replace(archive, path=path)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_archive(path: Path, program: str = "inference.py") -> ModelArchive:
    """Look through an archive.

    Args:
        path: The file.
        program: The script's name in `code/`.

    Raises:
        Invalid: with everything that is wrong with it.
    """
    try:
        with checked_archive(path) as (tar, members):
            stages = stages_of(_script(tar, members, program))
    except UnsafeArchive as error:
        raise Invalid(f"{path}: {error}") from error
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Invalid(f"{path}: it is not a model.tar.gz: {error}") from error
    size = path.stat().st_size
    wrong = [*lint(members, program), *([f"it has {size >> 30} GiB"] if size > _LARGEST_BYTES else [])]
    if wrong:
        raise Invalid(f"{path}: " + "; ".join(wrong))
    weights = sum(member.size for member in members if member.isfile() and _is_weights(member.name))
    return ModelArchive(path, digest_of(path), size, weights, stages)


def lint(members: list[tarfile.TarInfo], program: str = "inference.py") -> tuple[str, ...]:
    """What is wrong with an archive's members, in words. Pure."""
    wrong = unsafe_members(members)
    script = f"{program.removesuffix('.py')}.py"
    files = [_normal(member.name) for member in members if member.isfile()]
    if f"code/{script}" not in files:
        nested = next((name for name in files if name.endswith(f"/code/{script}")), None)
        if nested is not None:
            folder = nested.removesuffix(f"/code/{script}")
            wrong.append(f"everything lies one folder too deep: pack the contents of {folder}/, not the folder")
        elif script in files:
            wrong.append(f"{script} lies at the root: it belongs into code/")
        elif script != DEFAULT_PROGRAM:
            wrong.append(f"code/{script} is missing")
        else:
            wrong += _without_script(files)
    if not any(_is_weights(name) for name in files):
        wrong.append(f"no weights in it (a file that ends with {', '.join(WEIGHTS)})")
    if any(PurePosixPath(name).name.startswith("._") for name in files):
        wrong.append("files of macOS (._…) in it: pack with COPYFILE_DISABLE=1")
    return tuple(wrong)


def _without_script(files: list[str]) -> list[str]:
    try:
        choose_model_file(name for name in files if "/" not in name)
    except ModelError as error:
        return [f"code/{DEFAULT_PROGRAM} is missing, and {error}"]
    return []


def stages_of(script: str) -> int:
    """`STAGES` at the top of a script; 1 where it says nothing, or nothing that can be read without running it."""
    try:
        statements = ast.parse(script).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):  # the last two of nonsense that is deep
        return 1
    for statement in statements:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            named = any(isinstance(target, ast.Name) and target.id == "STAGES" for target in statement.targets)
            if named and isinstance(statement.value.value, int):
                return statement.value.value
    return 1


def _script(tar: tarfile.TarFile, members: list[tarfile.TarInfo], program: str) -> str:
    name = f"code/{program.removesuffix('.py')}.py"
    member = next((member for member in members if member.isfile() and _normal(member.name) == name), None)
    file = tar.extractfile(member) if member else None
    return file.read(_SCRIPT_BYTES).decode("utf-8", errors="replace") if file else ""


def _is_weights(name: str) -> bool:
    return PurePosixPath(name).suffix in WEIGHTS


def _normal(name: str) -> str:
    return name.removeprefix("./")
