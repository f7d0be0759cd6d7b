from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parity import cases, compare, published, seeds
from parity.published import ComparisonError, Source, checked_out


@pytest.mark.parametrize(
    ("difference", "tolerance", "verdict"),
    [
        (1e-6, 1e-5, "ok"),
        (0.0, 0.0, "ok"),
        (2e-5, 1e-5, "FAILED"),
        (float("inf"), 1e-5, "FAILED"),
        (2e-5, None, "figure"),
        (None, 1e-5, "skipped"),
    ],
)
def test_verdict(difference: float | None, tolerance: float | None, verdict: str) -> None:
    assert compare.Row("what", (1,), difference, tolerance).verdict == verdict


@pytest.mark.parametrize("other", [torch.zeros(1, 3), torch.tensor([[0.0], [float("nan")]])])
def test_another_shape_and_what_is_no_number_are_infinitely_far(other: torch.Tensor) -> None:
    assert cases.largest_difference(torch.zeros(2, 1), other) == float("inf")


def test_seeded_numbers_are_these() -> None:
    # Were they others on some machine or with some NumPy, no golden array would hold there.
    assert (seeds.uniform("a", (2, 2)) * 2**23).tolist() == [[3007596, 3185442], [1574015, 4963895]]


def test_a_names_numbers_do_not_depend_on_how_many_are_drawn() -> None:
    assert (seeds.uniform("a", (3,)) == seeds.uniform("a", (100,))[:3]).all()
    assert (seeds.uniform("a", (3,)) != seeds.uniform("b", (3,))).any()


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A repository with a package in two versions, and its commits."""
    folder = tmp_path_factory.mktemp("clone")
    git(folder, "init", "--quiet")
    commits = []
    (folder / "networks_of_test").mkdir()
    for version in (1, 2):
        (folder / "networks_of_test" / "layers.py").write_text(f"VERSION = {version}\n")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", f"Version {version}")
        commits.append(git(folder, "rev-parse", "HEAD"))
    return folder, commits


def test_each_commit_has_its_own_modules_and_leaves_none(clone: tuple[Path, list[str]]) -> None:
    folder, commits = clone
    path = list(sys.path)
    versions = []
    for commit in commits:
        with checked_out(folder, Source("somewhere", commit, ("networks_of_test",))):
            versions.append(importlib.import_module("networks_of_test.layers").VERSION)
    assert versions == [1, 2]
    assert sys.path == path
    assert not [name for name in sys.modules if name.startswith("networks_of_test")]


def test_missing_commit_is_one_line(clone: tuple[Path, list[str]]) -> None:
    with (
        pytest.raises(ComparisonError, match=r"expected a clone of https://\S+ with commit ac7e1c8 in its history") as error,
        checked_out(clone[0], published.U2NET),
    ):
        pass
    assert "\n" not in str(error.value)


def test_wrong_folder_ends_with_2_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare.py", "--u2net", str(tmp_path), "--fba", str(tmp_path)])
    assert compare.main() == 2
    assert capsys.readouterr().err.startswith(f"compare: {tmp_path}: expected a clone of")


def test_golden_arrays_say_what_they_were_made_with() -> None:
    text = (cases.GOLDEN / "README.md").read_text()
    for source in (published.U2NET, published.FBA_RELEASED, published.FBA_HEAD):
        assert source.commit in text
    assert str(seeds.SEED) in text
