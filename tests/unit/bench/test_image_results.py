from __future__ import annotations

from pathlib import Path

import pytest

from bench.bench_error import BenchError
from bench.image_outcome import Answered, PictureError
from bench.image_results import FolderResults, file_name, open_results, result_name


def answered(name: str, content_type: str = "image/png") -> Answered:
    return Answered(name, b"result", content_type)


@pytest.mark.parametrize(
    ("name", "content_type", "expected"),
    [
        ("a.jpg", "image/png", "a.jpg.png"),
        ("a.png", "image/png", "a.png.png"),
        ("sub/a.jpg", "application/json; charset=utf-8", "sub/a.jpg.json"),
        ("a.jpg", "application/x-own", "a.jpg.bin"),
        ("a.jpg", "", "a.jpg.bin"),
    ],
)
def test_a_result_has_its_picture_s_whole_name_so_that_no_two_meet(name: str, content_type: str, expected: str) -> None:
    assert result_name(answered(name, content_type)) == expected


def test_any_key_is_a_path_below_the_folder_and_no_two_are_the_same() -> None:
    names = ["a.jpg", "../a.jpg", "/a.jpg", "x//a.jpg", "x/./a.jpg", "%2E%2E/a.jpg", "%/a.jpg", "x/%/a.jpg", "..%2Fa.jpg"]
    paths = [file_name(name) for name in names]
    assert len(set(paths)) == len(names)
    assert all(part not in ("", ".", "..") for path in paths for part in path.split("/"))


def test_a_result_is_written_as_a_whole_and_over_an_older_one(tmp_path: Path) -> None:
    results = FolderResults(tmp_path / "out")
    results.check()
    assert results.write(answered("sub/a\nb.jpg")) == "sub/a\nb.jpg.png"
    assert results.write(answered("sub/a\nb.jpg")) == "sub/a\nb.jpg.png"
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [b"result"]


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path: Path) -> None:
    dead, alive = tmp_path / ".unfinished-999999999-0", tmp_path / ".unfinished-1-0"
    for path in (dead, alive):
        path.write_bytes(b"half")
    FolderResults(tmp_path).check()
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "nul\0.jpg", "taken/a.jpg"])
def test_a_name_that_no_file_can_have_is_that_picture_s_failure(tmp_path: Path, name: str) -> None:
    (tmp_path / "taken").write_bytes(b"a file where a folder would have to be")
    with pytest.raises(PictureError, match="no file can have its name"):
        FolderResults(tmp_path).write(answered(name))
    assert not list(tmp_path.glob(".unfinished-*"))


def test_a_folder_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"--output .*file cannot be written: "):
        FolderResults(tmp_path / "file").check()
    with pytest.raises(BenchError, match=r"--output .*cannot be written: "):
        FolderResults(Path("/proc/results")).check()


def test_a_folder_that_is_gone_ends_the_run(tmp_path: Path) -> None:
    results = FolderResults(Path("/proc/results"))
    with pytest.raises(BenchError, match="cannot be written any more"):
        results.write(answered("a.jpg"))


def test_results_can_be_dropped() -> None:
    results = open_results(None)
    results.check()
    assert results.write(answered("a.jpg")) is None
