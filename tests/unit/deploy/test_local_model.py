"""The model folder of a local endpoint."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from deploy_error import Invalid
from local_model import unpack_read_only


def pack(archive: Path, **members: bytes) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return archive


def test_nobody_may_write_to_what_was_unpacked(tmp_path: Path) -> None:
    archive = pack(tmp_path / "model.tar.gz", weights_dot_pt=b"w", code__inference_dot_py=b"x = 1")
    unpack_read_only(archive, tmp_path / "model")
    modes = {str(p.relative_to(tmp_path)): oct(p.stat().st_mode)[-3:] for p in sorted((tmp_path / "model").rglob("*"))}
    assert modes == {"model/code": "555", "model/code/inference.py": "444", "model/weights.pt": "444"}
    assert (tmp_path / "model" / "code" / "inference.py").read_bytes() == b"x = 1"


def test_the_next_one_takes_its_place(tmp_path: Path) -> None:
    unpack_read_only(pack(tmp_path / "first.tar.gz", code__old_dot_py=b"", weights_dot_pt=b"1"), tmp_path / "model")
    unpack_read_only(pack(tmp_path / "second.tar.gz", weights_dot_pt=b"2"), tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").rglob("*")] == ["weights.pt"]
    assert (tmp_path / "model" / "weights.pt").read_bytes() == b"2"


def test_what_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "model.tar.gz", **{"..__elsewhere": b""})
    with pytest.raises(Invalid, match=r"model\.tar\.gz cannot be unpacked .*leads out of the model folder"):
        unpack_read_only(archive, tmp_path / "model")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"no archive")
    with pytest.raises(Invalid, match="cannot be unpacked"):
        unpack_read_only(tmp_path / "model.tar.gz", tmp_path / "model")
