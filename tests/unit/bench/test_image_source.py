from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from bench.bench_error import BenchError
from bench.image_source import Folder, SeededPictures, content_type_of, open_source


def a_folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode(errors="surrogateescape"))
    return tmp_path / "photos"


def test_seeded_pictures_are_the_same_in_every_run_and_differ_from_each_other() -> None:
    one, other = SeededPictures(3000, (160, 120)), SeededPictures(3000, (160, 120))
    assert len(one.names) == 3000
    bodies = [one.read(name) for name in one.names[:3]]
    assert bodies == [other.read(name) for name in other.names[:3]]
    assert len(set(bodies)) == 3
    assert Image.open(io.BytesIO(bodies[0])).size == (160, 120)


def test_a_folder_gives_its_pictures_in_order_and_counts_what_is_none(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "b.PNG", "a.jpg", "sub/c.webp", "notes.txt", "README", ".hidden.jpg", ".git/d.jpg")
    source = Folder(folder)
    assert source.names == ["a.jpg", "b.PNG", "sub/c.webp"]
    assert source.left_out == 2
    assert source.read("sub/c.webp") == b"sub/c.webp"


@pytest.mark.parametrize("name", ["a\nb.jpg", "ä €.jpg", "what?#;.jpg", "-.jpg", os.fsdecode(b"\xff.jpg"), "a;b.jpg"])
def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    source = Folder(a_folder(tmp_path, name))
    assert source.names == [name]
    assert source.read(name) == os.fsencode(name)
    assert content_type_of(name) == "image/jpeg"


def test_results_below_the_source_are_no_pictures(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "a.jpg", "results/a.jpg.png", "state/x.png")
    assert open_source(str(folder), 1, (8, 8), str(folder / "results"), folder / "state").names == ["a.jpg"]


def test_results_among_the_pictures_are_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "a.jpg")
    with pytest.raises(BenchError, match="is where the pictures are"):
        open_source(str(folder), 1, (8, 8), f"{folder}/", tmp_path / "state")
    with pytest.raises(BenchError, match="is where the pictures are"):
        open_source("s3://bucket/photos", 1, (8, 8), "s3://bucket/photos/", tmp_path / "state")


def test_no_pictures_and_no_folder_are_one_line(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, "notes.txt")
    with pytest.raises(BenchError, match=r"has no pictures \(1 files of other kinds\)"):
        open_source(str(folder), 1, (8, 8), None, tmp_path / "state")
    with pytest.raises(BenchError, match="there is no such folder"):
        open_source(str(tmp_path / "nowhere"), 1, (8, 8), None, tmp_path / "state")
