from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from multigpu_inference.errors import StartupError
from multigpu_inference.run_folder import run_folder


def test_it_is_ours_alone(tmp_path: Path) -> None:
    with run_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_it_is_gone_afterwards(tmp_path: Path) -> None:
    with run_folder(tmp_path) as folder:
        (folder / "engine.sock").touch()
    assert list(tmp_path.iterdir()) == []


def test_it_is_gone_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyError), run_folder(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_two_at_a_time_do_not_meet(tmp_path: Path) -> None:
    with run_folder(tmp_path) as first, run_folder(tmp_path) as second:
        assert first != second
        assert first.is_dir()


def test_one_whose_owner_has_gone_is_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / "multigpu-old"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    (abandoned / "engine.sock").touch()
    with run_folder(tmp_path):
        assert not abandoned.exists()


@pytest.mark.parametrize("name", ["other-folder", "multigpu-without-a-lock"])
def test_what_is_none_of_ours_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with run_folder(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_another_users_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "multigpu-theirs"
    theirs.mkdir()
    (theirs / "lock").touch()
    os.chown(theirs, 12345, 12345)
    os.chown(theirs / "lock", 12345, 12345)
    with run_folder(tmp_path):
        pass
    assert theirs.exists()


def test_the_systems_temporary_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with run_folder() as folder:
        assert folder.parent == tmp_path


def test_where_nothing_can_be_written_the_start_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(StartupError, match=r"^there is no temporary folder to write to: No such file or directory$"),
        run_folder(tmp_path / "none"),
    ):
        pass


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_an_abandoned_one_that_was_handed_over_is_removed(tmp_path: Path) -> None:
    handed_over = tmp_path / "multigpu-ours"
    handed_over.mkdir()
    (handed_over / "lock").touch()
    os.chown(handed_over, 12345, 12345)
    with run_folder(tmp_path):
        assert not handed_over.exists()


def test_a_lock_that_leads_elsewhere_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    trap = tmp_path / "multigpu-trap"
    trap.mkdir()
    (trap / "lock").symlink_to(elsewhere)
    with run_folder(tmp_path):
        assert trap.exists()
