"""The demo's model.tar.gz has SageMaker's layout, is the same bytes each time, and is unpacked without trust."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from archive import pack_model, unpack_model
from demo_error import DemoError


@pytest.fixture
def code_dir(tmp_path: Path) -> Path:
    code = tmp_path / "sources" / "code"
    (code / "matting" / "__pycache__").mkdir(parents=True)
    (code / ".cache").mkdir()
    (code / "inference.py").write_text("STAGES = 2\n")
    (code / "requirements.txt").write_text("scipy\n")
    (code / "matting" / "u2net.py").write_text("# a network\n")
    (code / "matting" / "__pycache__" / "u2net.cpython-311.pyc").write_bytes(b"cached")
    (code / "stray.pyc").write_bytes(b"cached")
    (code / ".DS_Store").write_bytes(b"hidden")
    (code / ".cache" / "notes.txt").write_bytes(b"hidden")
    return code


@pytest.fixture
def weights(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "checkpoint.safetensors", tmp_path / "checkpoint_2.safetensors"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 1000)
    return paths


def write_archive(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def test_weights_lie_at_the_root_and_code_in_its_folder(tmp_path: Path, code_dir: Path, weights: list[Path]) -> None:
    pack_model(tmp_path / "model.tar.gz", code_dir, weights)
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        assert tar.getnames() == [
            "checkpoint.safetensors",
            "checkpoint_2.safetensors",
            "code/inference.py",
            "code/matting/u2net.py",
            "code/requirements.txt",
        ]


def test_the_same_files_give_the_same_bytes(tmp_path: Path, code_dir: Path, weights: list[Path]) -> None:
    first, second = tmp_path / "model.tar.gz", tmp_path / "elsewhere" / "other-name.tar.gz"
    pack_model(first, code_dir, weights)
    os.utime(weights[0], (1, 1))
    weights[1].chmod(0o600)
    pack_model(second, code_dir, list(reversed(weights)))
    assert first.read_bytes() == second.read_bytes()


def test_unpacking_gives_back_what_was_packed(tmp_path: Path, code_dir: Path, weights: list[Path]) -> None:
    pack_model(tmp_path / "model.tar.gz", code_dir, weights)
    model = tmp_path / "opt" / "ml" / "model"
    unpack_model(tmp_path / "model.tar.gz", model)
    assert (model / "checkpoint_2.safetensors").read_bytes() == weights[1].read_bytes()
    assert (model / "code" / "matting" / "u2net.py").read_text() == "# a network\n"


def test_unpacking_removes_what_an_earlier_model_left(tmp_path: Path, code_dir: Path, weights: list[Path]) -> None:
    pack_model(tmp_path / "model.tar.gz", code_dir, weights)
    model = tmp_path / "model"
    model.mkdir()
    (model / "old.pth").write_bytes(b"old")
    unpack_model(tmp_path / "model.tar.gz", model)
    assert not (model / "old.pth").exists()


def test_a_code_folder_without_a_script_is_refused(tmp_path: Path, weights: list[Path]) -> None:
    with pytest.raises(DemoError, match=r"holds no inference\.py"):
        pack_model(tmp_path / "model.tar.gz", tmp_path, weights)


@pytest.mark.parametrize("name", ["../outside", "code/../../outside", "/outside"])
def test_a_path_that_leads_out_is_refused_before_anything_is_touched(tmp_path: Path, name: str) -> None:
    archive = write_archive(tmp_path / "model.tar.gz", tarfile.TarInfo("harmless"), tarfile.TarInfo(name))
    model = tmp_path / "inner" / "model"
    model.mkdir(parents=True)
    (model / "kept").write_bytes(b"kept")
    with pytest.raises(DemoError, match="leads out of the model folder"):
        unpack_model(archive, model)
    assert [path.name for path in model.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    "fields", [{"GNU.sparse.size": "1"}, {"GNU.sparse.map": "0,1"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}]
)
def test_a_sparse_file_is_refused_before_its_map_is_read(tmp_path: Path, fields: dict[str, str]) -> None:
    member = tarfile.TarInfo("checkpoint.safetensors")
    member.size, member.pax_headers = 4096, fields
    archive = write_archive(tmp_path / "model.tar.gz", member)
    with pytest.raises(DemoError, match="a sparse file is in it"):
        unpack_model(archive, tmp_path / "model")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_archive_that_begins_with_nonsense_is_refused_in_a_line(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("a")
    header.type, header.size = kind, -512
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(DemoError, match="it is damaged"):
        unpack_model(archive, tmp_path / "model")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("checkpoint.safetensors")
    member.type = kind
    member.linkname = "/etc/passwd"
    archive = write_archive(tmp_path / "model.tar.gz", member)
    with pytest.raises(DemoError, match="neither a file nor a folder"):
        unpack_model(archive, tmp_path / "model")
