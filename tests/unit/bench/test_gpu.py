"""The GPU benchmark's plumbing, with small networks on the CPU; its figures mean nothing here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import matting.pipeline
from bench import gpu, gpu_chain
from bench.gpu_report import Row, Section, write_report
from bench.gpu_setup import Setup
from multigpu_inference.engine.hops import Span


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matting.pipeline, "TRIMAP_SIZE", 32)


@pytest.mark.usefixtures("small_input")
@pytest.mark.slow
def test_every_section_in_one_process_gives_figures(tmp_path: Path) -> None:
    sections = ["networks", "chain", "streams", "copies", "layouts", "trace"]
    code = gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path), "--only", *sections])
    assert code == 0
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert [section["name"] for section in content["sections"]] == sections
    rows = [row for section in content["sections"] for row in section["rows"]]
    assert len(rows) > 20
    assert all(row["images_per_second"] > 0 for row in rows)
    assert {"device", "torch", "date"} <= set(content["about"])
    table = (tmp_path / "gpu.md").read_text()
    assert all(row["what"] in table for row in rows)
    assert "Stopped" not in table
    spans = json.loads((tmp_path / "gpu_spans.json").read_text())["traceEvents"]
    assert {event["tid"] for event in spans} == {"stage_1", "stage_2"}
    assert (tmp_path / "gpu_kernels.json").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_replicas_are_processes_of_their_own() -> None:
    section = Section("replicas", "")
    gpu_chain.measure_replicas(Setup.make("cpu", quick=True), section)
    assert [row.images_per_second > 0 for row in section.rows] == [True, True]


def test_a_section_that_fails_is_reported_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(setup: Setup, section: Section) -> None:
        raise RuntimeError("no such\nkernel")

    def work(setup: Setup, section: Section) -> None:
        section.rows.append(Row("all", "float32", 1, 12.0, 15.0))

    monkeypatch.setattr(gpu, "_sections", lambda out: {"first": ("First", fail), "second": ("Second", work)})
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "Stopped: RuntimeError: no such kernel" in printed
    assert "| all | float32 | 1 | 12.0 | 15.0 | 0.80 |" in printed


def test_no_gpu_is_said_and_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main(["--out", str(tmp_path / "out")]) == 1
    assert "torch sees no GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_overlap_is_the_share_in_which_both_are_at_work() -> None:
    assert gpu_chain.overlap([(0.0, 4.0)], [(2.0, 8.0)]) == pytest.approx(0.25)
    assert gpu_chain.overlap([(0.0, 1.0), (1.0, 2.0)], [(0.5, 1.5)]) == pytest.approx(0.5)
    assert gpu_chain.overlap([(0.0, 1.0)], [(1.0, 2.0)]) == 0
    assert gpu_chain.overlap([], []) == 0


def test_spans_become_events_in_microseconds_from_the_first() -> None:
    events = gpu_chain.chrome_events([Span("stage_1_ms", 10.0, 10.5, 2), Span("stage_2_ms", 10.5, 11.0)])
    assert [(event["tid"], event["ts"], event["dur"], event["name"]) for event in events] == [
        ("stage_1", 0.0, 500_000.0, "batch of 2"),
        ("stage_2", 500_000.0, 500_000.0, "batch of 1"),
    ]


def test_a_row_without_a_limit_has_no_share(tmp_path: Path) -> None:
    text = write_report(tmp_path, {"device": "none"}, [Section("a", "A", [Row("x", "float16", 8, 3.0)])])
    assert "| x | float16 | 8 | 3.0 |  |  |  |" in text
