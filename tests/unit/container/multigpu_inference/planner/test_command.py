from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from multigpu_inference.__main__ import main
from multigpu_inference.errors import SettingsError
from multigpu_inference.planner.command import own_output


def test_the_planners_own_process_loads_no_torch() -> None:
    looked_for = {"torch", "numpy", "multigpu_inference.planner.command"}
    script = f"import sys, multigpu_inference.__main__; print({looked_for} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "{'multigpu_inference.planner.command'}\n"


@pytest.mark.parametrize("arguments", [[], ["plan"], ["plan", "folder", "--devices", "0"], ["plan", "folder", "--target", "x"]])
def test_arguments_that_are_not_allowed_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m multigpu_inference" in capsys.readouterr().err


def test_what_others_print_goes_to_the_log_and_not_between_the_plan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with own_output(tmp_path / "log") as out:
        subprocess.run(["echo", "from a process"], check=True)
        os.write(1, b"from this one\n")
        out.write("the plan\n")
    os.write(1, b"afterwards\n")
    assert capfd.readouterr().out == "the plan\nafterwards\n"
    assert (tmp_path / "log").read_text() == "from a process\nfrom this one\n"


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--log .* cannot be written: Is a directory"), own_output(tmp_path):
        pass
