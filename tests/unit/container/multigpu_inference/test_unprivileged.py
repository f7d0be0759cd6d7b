from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from multigpu_inference.config import HTTP, MMS, Settings
from multigpu_inference.errors import SettingsError
from multigpu_inference.unprivileged import Seen, look, seen_of, unprivileged_user, unreadable
from support import free_port


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), **more}


def choose(tmp_path: Path, **environment: str) -> object:
    return asyncio.run(unprivileged_user(Settings.from_env(environment), tmp_path))


def test_a_user_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MULTIGPU_USER='no-such-user': there is no such user; allowed are names of users"):
        choose(tmp_path, MULTIGPU_USER="no-such-user")


def test_root_stays_root_where_that_is_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert choose(tmp_path, MULTIGPU_USER="root") is None
    assert capfd.readouterr().out == ""


def test_without_the_images_user_all_stay_as_they_are(tmp_path: Path) -> None:
    owner = tmp_path.stat().st_uid
    assert choose(tmp_path) is None  # no machine but the image has it
    assert tmp_path.stat().st_uid == owner


def test_a_folder_that_can_be_read_has_nothing_unreadable(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    assert unreadable(tmp_path) is None
    assert unreadable(tmp_path / "no such folder") is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything; tests/hostile has it with another user")
def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0)
    assert unreadable(tmp_path) == str(tmp_path / "secret")


def test_nothing_stops_who_may_do_everything(tmp_path: Path) -> None:
    seen = look(tmp_path, tmp_path, HTTP, free_port(), environ(tmp_path))
    assert seen.obstacle is None
    assert seen.has_home


def test_what_packages_print_when_python_starts_is_passed_over() -> None:
    assert seen_of(b'agent 1.0\n\n{"obstacle": "no", "unreadable": "/model"}\n') == Seen("no", "/model")


@pytest.mark.parametrize("said", [b"", b"\n", b"agent\n", b"1\n", b"\xff\n", b'{"other": 1}\n'])
def test_what_cannot_be_understood_stops_no_start(said: bytes) -> None:
    assert seen_of(said).obstacle == "what Python prints for it cannot be read"


def test_a_port_that_is_taken_is_no_obstacle(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        assert look(tmp_path, tmp_path, HTTP, taken.getsockname()[1], environ(tmp_path)).obstacle is None


def test_multi_model_server_needs_java(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    port, given = free_port(), environ(tmp_path, JAVA_HOME=str(tmp_path))
    assert look(tmp_path, tmp_path, MMS, port, given).obstacle == "it cannot start Java"
    java.touch(mode=0o755)
    assert look(tmp_path, tmp_path, MMS, port, given).obstacle is None
    assert look(tmp_path, tmp_path, HTTP, port, environ(tmp_path, JAVA_HOME="/nowhere")).obstacle is None


def test_a_run_folder_that_cannot_be_reached_is_an_obstacle(tmp_path: Path) -> None:
    seen = look(tmp_path, tmp_path / "none", HTTP, free_port(), environ(tmp_path))
    assert seen.obstacle == f"it cannot use {tmp_path / 'none'}"


@pytest.mark.parametrize("home", ["", "/nonexistent"])
def test_a_home_that_is_not_there_is_none(tmp_path: Path, home: str) -> None:
    assert not look(tmp_path, tmp_path, HTTP, free_port(), {"HOME": home}).has_home


def test_temporary_files_go_where_the_operator_says_if_they_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    for folder, has_one in ((tmp_path, True), (tmp_path / "none", False)):
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.setenv("TMPDIR", str(folder))
        assert look(tmp_path, tmp_path, HTTP, free_port(), environ(tmp_path, TMPDIR=str(folder))).has_temporary is has_one
