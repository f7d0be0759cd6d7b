from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench import image_report, provenance
from bench.bench_error import BenchError
from bench.image_figures import ImageFigures, image_figures, image_rows
from bench.image_journal import JournalContent
from bench.image_model import find_model
from bench.image_outcome import Outcome
from bench.image_progress import ImageProgress
from bench.image_use import Use, together
from bench.images import shown
from bench.simulation import STUDY


def figures(workers: int, seconds: float) -> ImageFigures:
    outcomes = {f"{n}.jpg": Outcome(f"{n}.jpg", None, None, 4.0 + n % 3, 45.0) for n in range(300)}
    outcomes["broken.jpg"] = Outcome("broken.jpg", error="500: cannot identify image file")
    content = JournalContent({}, outcomes, [seconds], [Use(seconds, 0.25, 0.9)])
    return image_figures(content, workers, workers)


def test_the_table_has_medians_times_and_speed_up() -> None:
    rows = image_rows([figures(1, 60.0), figures(4, 15.0)])
    assert rows[0] == ["1", "1", "300", "1", "5.0", "45.0", "60.0", "5.0", "1.00", "25 %", "90 %", "-"]
    assert rows[1] == ["4", "4", "300", "1", "5.0", "45.0", "15.0", "20.0", "4.00", "25 %", "90 %", "-"]


def test_what_was_not_told_is_a_dash() -> None:
    told = image_figures(JournalContent({}, {"a.jpg": Outcome("a.jpg")}, [2.0]), 1, 1)
    assert image_rows([told]) == [["1", "1", "1", "0", "-", "-", "2.0", "0.5", "1.00", "-", "-", "-"]]


def test_sessions_count_as_long_as_they_lasted() -> None:
    assert together([Use(1.0, 0.25, 0.5, 0.4), Use(3.0, 0.75, 1.0)]) == Use(4.0, 0.625, 0.875, 0.4)
    assert together([]) is None


def test_the_page_and_the_json_hold_what_was_run(tmp_path: Path) -> None:
    about = {"date": "today", "commit": "", "machine": provenance.machine(), "model": "st<u>dy", "source": "photos"}
    image_report.write({**about, "command": "images"}, [figures(1, 60.0), figures(8, 8.0)], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "7.50" in page
    assert "st&lt;u&gt;dy" in page
    assert "data:image/svg+xml" in page


def test_a_path_that_is_not_utf_8_is_shown() -> None:
    assert shown("ä/\udcff") == "ä/\\udcff"


def test_a_bar_on_a_terminal_and_a_line_for_each_tenth_elsewhere() -> None:
    lines: list[str] = []
    plain = ImageProgress("4 workers", 3000, 1500, Console(file=io.StringIO()), lines.append, iter(range(5000)).__next__)
    with plain:
        for number in range(1500):
            plain.one(number == 7)
    assert len(lines) == 5
    assert lines[0] == "4 workers: 1800 of 3000, 1.0/s, 1 failed"
    out = io.StringIO()
    with ImageProgress("4 workers", 4, 0, Console(file=out, force_terminal=True, width=100), lines.append) as bar:
        for _ in range(4):
            bar.one(False)
    assert "4/4" in out.getvalue()
    assert len(lines) == 5


def test_a_model_is_a_workload_a_folder_or_a_script(tmp_path: Path) -> None:
    assert find_model("study").settings(4, 8, 2, "/locks")["SIM_DEVICES"] == "2"
    script = tmp_path / "mine.py"
    script.write_text("mine = True\n")
    find_model(str(script)).prepare(tmp_path / "ml")
    assert (tmp_path / "ml" / "model" / "code" / "inference.py").read_text() == "mine = True\n"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.pt").write_bytes(b"weights")
    own = find_model(str(folder))
    own.prepare(tmp_path / "other")
    assert (tmp_path / "other" / "model" / "model.pt").read_bytes() == b"weights"
    assert own.settings(4, 8, 4, "/locks") == {
        "MULTIGPU_FRONT_END": "http",
        "MULTIGPU_NUM_REPLICAS": "4",
        "MULTIGPU_PREPROCESS_WORKERS": "8",
    }


@pytest.mark.parametrize("name", ["noop", "nowhere", "model.tar.gz"])
def test_what_is_no_model_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.tar.gz").write_bytes(b"")
    with pytest.raises(BenchError, match=f"--model {name}: "):
        find_model(name)


def test_the_study_is_one_stage_of_45_ms_a_device() -> None:
    assert STUDY.ideal_per_second(4) == pytest.approx(4 * 1000 / 45)
    assert STUDY.lone_ms() == 50.0
    assert STUDY.environment(1, "/locks")["SIM_STAGES"] == "1"
