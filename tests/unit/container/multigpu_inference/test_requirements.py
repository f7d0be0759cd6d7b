from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from multigpu_inference import requirements as module
from multigpu_inference.errors import StartupError


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/already/here")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # nothing is fetched


def install_requirements(file: Path, run_dir: Path, timeout_s: float = 50.0) -> None:
    asyncio.run(module.install_requirements(file, run_dir, timeout_s))


def requirements(folder: Path, text: str) -> Path:
    file = folder / "requirements.txt"
    file.write_text(text)
    return file


def wheel(folder: Path) -> Path:
    """A distribution with one module, `answer`."""
    path = folder / "answer-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("answer.py", "VALUE = 42\n")
        archive.writestr("answer-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: answer\nVersion: 1.0\n")
        archive.writestr(
            "answer-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("answer-1.0.dist-info/RECORD", "")
    return path


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "\n\n", "# nothing\n   # at all\n"),
        "numpy>=1  # any\npillow\n",
        'no-such-thing; python_version < "3"\n',
    ],
)
def test_pip_is_not_asked_where_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.setattr(sys, "executable", "/there/is/no/python")
    file = tmp_path / "requirements.txt"
    if text is not None:
        file.write_text(text)
    install_requirements(file, tmp_path / "run")


@pytest.mark.parametrize("text", ["-r other.txt\n", "./folder\n", "numpy>=99\n", "numpy @ file:///a.whl\n"])
def test_pip_is_asked_where_only_it_can_tell(tmp_path: Path, text: str) -> None:
    with pytest.raises(StartupError, match="cannot be installed"):
        install_requirements(requirements(tmp_path, text), tmp_path / "run")


def test_what_is_installed_already_stays(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("numpy\n")
    install_requirements(requirements(tmp_path, f"-r {tmp_path / 'more.txt'}\n"), tmp_path / "run")
    assert os.environ["PYTHONPATH"] == "/already/here"
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_found_stops_the_start_with_pips_last_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"^code/requirements.txt cannot be installed: .*multigpu-no-such-thing"):
        install_requirements(requirements(tmp_path, "multigpu-no-such-thing==1\n"), tmp_path / "run")


def test_where_the_environment_cannot_be_written_to_packages_go_in_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    run_dir = tmp_path / "run"
    install_requirements(requirements(tmp_path, f"{wheel(tmp_path)}\n"), run_dir)
    assert os.environ["PYTHONPATH"] == f"{run_dir / 'site-packages'}{os.pathsep}/already/here"
    child = subprocess.run(
        [sys.executable, "-c", "import answer; print(answer.VALUE)"], capture_output=True, text=True, check=True
    )
    assert child.stdout == "42\n"


def test_an_installation_that_takes_too_long_stops_the_start_and_pip(tmp_path: Path) -> None:
    package = tmp_path / "slow"
    package.mkdir()
    (package / "setup.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(StartupError, match=r"was not installed within 0\.5 s"):
        install_requirements(requirements(tmp_path, f"{package}\n"), tmp_path / "run", 0.5)
    assert not [p for p in psutil.Process().children() if "pip" in p.cmdline()]
