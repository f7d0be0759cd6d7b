from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from demo_error import DemoError
from demo_model import take_model


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's model folder."""
    folder = tmp_path / "own"
    (folder / "code").mkdir(parents=True)
    (folder / "code" / "inference.py").write_text("# mine")
    return folder


def script(base_dir: Path) -> str:
    return (base_dir / "model" / "code" / "inference.py").read_text()


def test_a_folder_is_served_where_it_is(own: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a second time as well
        take_model(own, tmp_path / "ml")
    (own / "code" / "inference.py").write_text("# changed")
    assert script(tmp_path / "ml") == "# changed"


def test_an_archive_is_unpacked(own: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(own / "code", "code")
    take_model(tmp_path / "model.tar.gz", tmp_path / "ml")
    assert script(tmp_path / "ml") == "# mine"


def test_an_archive_takes_the_place_of_a_folder_and_leaves_that_alone(own: Path, tmp_path: Path) -> None:
    take_model(own, tmp_path / "ml")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(own / "code", "code")
    take_model(tmp_path / "model.tar.gz", tmp_path / "ml")
    assert script(own.parent / "ml") == "# mine"
    assert (own / "code" / "inference.py").exists()
    assert not (tmp_path / "ml" / "model").is_symlink()


def test_what_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"there is no such folder or model\.tar\.gz"):
        take_model(tmp_path / "nothing", tmp_path / "ml")


def test_what_is_no_archive_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DemoError, match="it cannot be unpacked"):
        take_model(tmp_path / "model.tar.gz", tmp_path / "ml")


def test_a_folder_without_a_script_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with pytest.raises(DemoError, match=r"there is no script in its folder code/; without a model_fn"):
        take_model(tmp_path / "own", tmp_path / "ml")
