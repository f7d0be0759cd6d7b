"""What inferences cost. The figures in here are made up: they say nothing of any instance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import costs
from cost_measurement import CostMeasurement, read_measurements
from cost_table import conclusions, cost_lines
from deploy_error import Invalid


def measured(instance: str, throughput: float, mean_ms: float | None = 100.0) -> CostMeasurement:
    return CostMeasurement(instance, None, mean_ms, throughput, "made up", "2026-01-02")


def result(**changes: Any) -> dict[str, Any]:
    """Of `python -m bench run`, as far as it is read."""
    return {
        "workload": "matting",
        "front_end": "http",
        "devices": None,
        "replicas": 4,
        "concurrency": 1,
        "rate": None,
        "requests_per_second": 8.0,
        "errors": {},
        "settings": {},
        "body_bytes": None,
        "date": "2026-01-02T03:04:05+00:00",
        **changes,
    }


def gpu_report(device: str = "NVIDIA L4", **changes: Any) -> dict[str, Any]:
    """Of `python -m bench.gpu`, as far as it is read."""
    networks = [{"what": "trimap", "precision": "float16", "batch_size": 8, "images_per_second": 900.0}]
    chain = [
        {"what": "serial", "precision": "float32", "batch_size": 1, "images_per_second": 10.0},
        {"what": "batched", "precision": "float16", "batch_size": 8, "images_per_second": 25.0},
    ]
    sections = [{"name": "networks", "rows": networks}, {"name": "chain", "rows": chain}]
    return {"about": {"device": device, "date": "2026-01-02T00:00:00+00:00"}, "sections": sections, **changes}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(data: Any) -> Path:
        path = tmp_path / "file.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return to_file


def test_the_price_of_inferences_is_that_of_the_time_they_take() -> None:
    # 36 an hour is 0.01 a second; at 50 a second 100,000 take 2,000 s.
    (line,) = cost_lines([measured("ml.a", 50.0)], {"ml.a": 36.0})
    assert line.usd_per_hour == 36.0
    assert line.usd_per_100k == pytest.approx(20.0)


def test_the_cheapest_inference_comes_first_and_what_has_no_price_last() -> None:
    each = [measured("ml.unknown", 900.0), measured("ml.dear", 10.0), measured("ml.cheap", 20.0)]
    lines = cost_lines(each, {"ml.dear": 1.0, "ml.cheap": 1.0})
    assert [line.measured.instance for line in lines] == ["ml.cheap", "ml.dear", "ml.unknown"]
    assert lines[-1].usd_per_100k is None


def test_the_cheapest_inference_and_the_cheapest_hour_that_are_quick_enough() -> None:
    each = [measured("ml.large", 100.0, 50.0), measured("ml.small", 10.0, 90.0), measured("ml.slow", 1000.0, 101.0)]
    lines = cost_lines(each, {"ml.large": 10.0, "ml.small": 2.0, "ml.slow": 0.1})
    assert conclusions(lines, 100.0) == [
        "within 100 ms on average, the cheapest inference: ml.large, 2.78 USD for 100,000 under full load",
        "within 100 ms on average, the cheapest hour: ml.small, 2.00 USD",
    ]


def test_what_has_no_latency_or_no_price_meets_no_goal() -> None:
    lines = cost_lines([measured("ml.a", 10.0, None), measured("ml.b", 10.0)], {"ml.a": 1.0})
    assert conclusions(lines, 1000.0) == ["none of them is known to answer within 1000 ms on average"]


def test_a_file_of_measurements(write: Any) -> None:
    entry = {"instance": "ml.a", "first_ms": None, "mean_ms": 5, "throughput_per_s": 2.5, "source": "s", "date": "d"}
    assert read_measurements(write([entry])) == [CostMeasurement("ml.a", None, 5.0, 2.5, "s", "d")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean_ms": 0}, r"entry 1: mean_ms=0: allowed is a number above 0, or null"),
        ({"first_ms": "5"}, r"first_ms='5'"),
        ({"throughput_per_s": None}, r"throughput_per_s=None: allowed is a number above 0$"),
        ({"throughput_per_s": True}, r"throughput_per_s=True"),
        ({"source": " "}, r"source=' ': allowed is a text"),
        ({"p50_ms": 3}, r"p50_ms is not known; known are instance, first_ms, mean_ms"),
    ],
)
def test_a_measurement_that_is_none_is_refused(write: Any, change: dict[str, Any], message: str) -> None:
    entry = {"instance": "ml.a", "first_ms": None, "mean_ms": 5, "throughput_per_s": 2.5, "source": "s", "date": "d"}
    with pytest.raises(Invalid, match=message):
        read_measurements(write([{**entry, **change}]))


def test_a_benchmark_gives_its_best_throughput_and_the_mean_where_fewest_were_in_flight(write: Any) -> None:
    results = [
        result(),
        result(concurrency=16, requests_per_second=40.0),
        result(concurrency=32, requests_per_second=39.0),
        result(concurrency=1, requests_per_second=20.0, replicas=8),
    ]
    (found,) = read_measurements(write(results), "ml.a")
    assert (found.instance, found.throughput_per_s, found.mean_ms, found.first_ms) == ("ml.a", 40.0, 125.0, None)
    assert (found.source, found.date) == ("bench matting, http, 16 in flight; mean with 1", "2026-01-02T03:04:05+00:00")


def test_a_suite_is_read_with_its_sweeps(write: Any) -> None:
    rows = [
        {"kind": "load", "result": result(requests_per_second=40.0, concurrency=16)},
        {"kind": "memory", "result": {"workload": "matting"}},
    ]
    (found,) = read_measurements(write({"rows": rows, "sweeps": [[result()]]}), "ml.a")
    assert (found.throughput_per_s, found.mean_ms) == (40.0, 125.0)


@pytest.mark.parametrize(
    "change", [{"devices": 4}, {"rate": 5.0}, {"errors": {"503": 1}}, {"requests_per_second": 0.0}], ids=str
)
def test_a_benchmark_that_says_nothing_of_a_price_is_refused(write: Any, change: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="no closed loop of matting on real devices that went without errors"):
        read_measurements(write(result(**change)), "ml.a")


def test_another_workload_must_be_named(write: Any) -> None:
    with pytest.raises(Invalid, match=r"no workload matting; there are tiny \(--workload\)"):
        read_measurements(write(result(workload="tiny")), "ml.a")
    assert read_measurements(write(result(workload="tiny")), "ml.a", "tiny")[0].throughput_per_s == 8.0


@pytest.mark.parametrize("data", [result(), gpu_report()], ids=["bench", "bench.gpu"])
def test_the_type_that_a_benchmark_ran_on_must_be_named(write: Any, data: Any) -> None:
    with pytest.raises(Invalid, match="say with --instance which type it ran on"):
        read_measurements(write(data))


def test_the_gpu_benchmark_gives_what_a_type_reaches_at_best(write: Any) -> None:
    (found,) = read_measurements(write(gpu_report()), "ml.g6.12xlarge")
    assert (found.throughput_per_s, found.mean_ms, found.at_best) == (100.0, None, True)
    assert found.source == "bench.gpu on NVIDIA L4: batched, float16; times 4 GPUs"


def test_the_gpu_benchmark_of_another_gpu_is_refused(write: Any) -> None:
    with pytest.raises(Invalid, match=r"measured on NVIDIA L40S; ml\.g6\.12xlarge has L4"):
        read_measurements(write(gpu_report("NVIDIA L40S")), "ml.g6.12xlarge")
    with pytest.raises(Invalid, match=r"ml\.g9\.xlarge: its number of GPUs is not known"):
        read_measurements(write(gpu_report()), "ml.g9.xlarge")


def test_the_gpu_benchmark_without_the_whole_chain_is_refused(write: Any) -> None:
    report = gpu_report(sections=[{"name": "networks", "rows": [{"images_per_second": 1.0}]}])
    with pytest.raises(Invalid, match=r"no figure of the whole chain; run `python -m bench\.gpu --only chain replicas`"):
        read_measurements(write(report), "ml.g6.12xlarge")


@pytest.mark.parametrize("data", ["{", "[]", "{}", "7", '[{"a": 1}]'])
def test_what_is_none_of_these_is_refused(write: Any, data: str) -> None:
    with pytest.raises(Invalid, match=r"is not JSON|neither a list of measurements nor a benchmark's file"):
        read_measurements(write(data), "ml.a")


def test_the_table_says_what_was_measured_and_what_is_only_a_limit(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"instance": "ml.g5.12xlarge", "first_ms": 800.4, "mean_ms": 90, "throughput_per_s": 20, "source": "made up"}
    (tmp_path / "measured.json").write_text(json.dumps([{**entry, "date": "2026-01-02"}]))
    files = [str(tmp_path / "measured.json"), str(write(gpu_report()))]
    assert costs.main([*files, "--instance", "ml.g6.12xlarge", "--offline", "--goal-ms", "100"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("ml.")]
    assert rows[0][:8] == ["ml.g6.12xlarge", "5.75", "-", "-", "≤", "100.0", "≥", "1.60"]
    assert rows[1][:6] == ["ml.g5.12xlarge", "7.09", "800", "90", "20.0", "9.85"]
    assert "prices: table of 2026-11, us-east-1; second-hand" in out
    assert "the cheapest inference: ml.g5.12xlarge, 9.85 USD" in out


def test_for_machines_it_is_json(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert costs.main([str(write(result())), "--instance", "ml.g6.12xlarge", "--offline", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)["lines"]
    assert line["usd_per_100k"] == pytest.approx(5.752 / (8 * 3600) * 100_000)
    assert line["measured"]["instance"] == "ml.g6.12xlarge"


def test_without_aws_the_table_of_this_folder_is_asked(
    write: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert costs.main([str(write(result())), "--instance", "ml.g6.12xlarge"]) == 0
    assert "prices: table of 2026-11, us-east-1; second-hand" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_it_is_drawn(write: Any, tmp_path: Path, suffix: str) -> None:
    picture = tmp_path / "plots" / f"costs.{suffix}"
    files = [str(write([{**vars_of(measured("ml.g6.12xlarge", 5.0))}, vars_of(measured("ml.none", 7.0, None))]))]
    assert costs.main([*files, "--offline", "--goal-ms", "100", "--plot", str(picture)]) == 0
    assert picture.read_bytes()[:5] in (b"<?xml", b"\x89PNG\r")


def vars_of(each: CostMeasurement) -> dict[str, Any]:
    names = ("instance", "first_ms", "mean_ms", "throughput_per_s", "source", "date")
    return {name: getattr(each, name) for name in names}


def test_what_is_not_allowed_is_one_line_and_exit_code_2(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert costs.main([str(tmp_path / "none.json")]) == 2
    assert capsys.readouterr().err == f"costs: {tmp_path / 'none.json'}: No such file or directory\n"
    path = str(write([vars_of(measured("ml.g6.12xlarge", 5.0))]))
    assert costs.main([path, "--offline", "--plot", str(tmp_path / "costs.xyz")]) == 2
    assert "xyz" in capsys.readouterr().err
