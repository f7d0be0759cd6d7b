"""Starts that must fail, with their reason in one line; and starts that must not."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest

from integration.endpoint import Endpoint
from integration.kinds import http_only, mms_only
from support import wait_until

GOOD = """
def model_fn(model_dir): return {model}
def input_fn(body, content_type): return body
def predict_fn(data, model): return data
def output_fn(prediction, accept): return bytes(prediction)
"""


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_package", "inference.py cannot be imported: ModuleNotFoundError: No module named 'no_such_package'"),
        (
            GOOD.replace("return {model}", "raise FileNotFoundError('no weights')"),
            "model_fn failed on replica 0: FileNotFoundError: no weights",
        ),
        (
            "def input_fn(body, content_type): return 1",
            "model_fn failed on replica 0: without a model_fn the model folder must have model.pt, "
            "or one .pt, .pth, .pt2 or .onnx file: there is none",
        ),
        (
            "STAGES = 2\nclass Model: stages = [1, 2, 3]\n" + GOOD.replace("{model}", "Model()"),
            "model_fn returned a model with 3 stages on replica 0, but STAGES is 2",
        ),
        ("STAGES = 'two'\n" + GOOD.format(model=1), "inference.py: STAGES is 'two'; allowed is a whole number from 1 to 64"),
        (
            GOOD.format(model=1).replace("return data", "return 1 / 0") + "def sample_input(): return b'x', 'text/plain'",
            "sample_input() cannot be answered by replica-0: predict_fn: ZeroDivisionError: division by zero",
        ),
    ],
)
def test_a_script_that_cannot_serve_stops_the_start(new_endpoint: Callable[..., Endpoint], source: str, says: str) -> None:
    endpoint = new_endpoint(MULTIGPU_NUM_REPLICAS="1").with_source(source).start()
    assert endpoint.wait_exit(30) == 3
    assert [event["message"] for event in endpoint.events("start_failed")] == [says]  # one line
    assert not endpoint.events("ready")


def test_no_script_stops_the_start(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint()
    endpoint.model_dir.mkdir(parents=True)
    endpoint.start()
    assert endpoint.wait_exit(30) == 3
    assert "there is no" in endpoint.events("start_failed")[-1]["message"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MULTIGPU_NUM_REPLICAS", "none", "MULTIGPU_NUM_REPLICAS='none': allowed is a whole number from 1 to 256"),
        ("MULTIGPU_NUM_REPLICA", "2", "MULTIGPU_NUM_REPLICA is not a setting; did you mean MULTIGPU_NUM_REPLICAS?"),
    ],
)
def test_a_bad_setting_stops_the_start(new_endpoint: Callable[..., Endpoint], name: str, value: str, says: str) -> None:
    endpoint = new_endpoint(**{name: value}).with_script("commands").start()
    assert endpoint.wait_exit(10) == 2
    assert [event["message"] for event in endpoint.events("bad_settings")] == [says]


def test_a_placement_on_a_gpu_that_is_not_there_stops_the_start(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_PLACEMENT="cuda:7", MULTIGPU_DEVICES="cpu").with_script("commands").start()
    assert endpoint.wait_exit(10) == 2
    assert "there is no cuda:7" in endpoint.log.read_text()


def test_gpus_asked_for_where_torch_has_none_stop_the_start(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(MULTIGPU_DEVICES="cuda").with_script("commands").start()
    assert endpoint.wait_exit(30) == 3
    (reason,) = [e["message"] for e in endpoint.events("start_failed") if e["source"] == "supervisor"]
    assert reason.startswith("torch cannot use the GPU: torch 2.")


def test_a_taken_port_stops_the_start_at_once(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands")
    with socket.create_server(("0.0.0.0", endpoint.port)):
        endpoint.start()
        assert endpoint.wait_exit(10) == 3
    assert f"port {endpoint.port} cannot be used" in endpoint.events("start_failed")[0]["message"]


def test_a_second_start_after_an_unclean_stop(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands").start().ready()
    processes = endpoint.descendants()
    assert endpoint.process is not None
    endpoint.process.kill()
    endpoint.process.wait()
    wait_until(lambda: not [process for process in processes if process.is_running()], 10)
    left = list(endpoint.temporary.glob("multigpu-*"))
    assert len(left) == 1
    endpoint.log.unlink()
    endpoint.start().ready()
    assert endpoint.invoke({}).status_code == 200
    assert not left[0].exists()


def test_a_model_folder_that_cannot_be_written_to(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands")
    before = sorted(str(path) for path in endpoint.model_dir.rglob("*"))
    for folder in (endpoint.model_dir / "code", endpoint.model_dir):
        folder.chmod(0o555)
    try:
        endpoint.start().ready()
        assert endpoint.invoke({}).status_code == 200
        # root may write anywhere: that nothing was written is seen by looking
        assert [p for p in sorted(str(q) for q in endpoint.model_dir.rglob("*")) if "__pycache__" not in p] == before
    finally:
        for folder in (endpoint.model_dir, endpoint.model_dir / "code"):
            folder.chmod(0o755)


@mms_only
def test_fewer_front_end_workers_are_honoured_and_said(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="1").with_script("commands").start().ready()
    (line,) = endpoint.events("few_front_end_workers")
    assert "at most 1 of 2 devices can be busy" in line["message"]
    parents = {p.pid for p in endpoint.processes("model_service_worker")}
    assert len([p for p in endpoint.processes("model_service_worker") if p.ppid() in parents]) == 1


@http_only
def test_front_end_workers_mean_nothing_where_there_are_none(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint(SAGEMAKER_MODEL_SERVER_WORKERS="1").with_script("commands").start().ready()
    assert not endpoint.events("few_front_end_workers")


def test_requirements_are_installed_before_the_engine(new_endpoint: Callable[..., Endpoint]) -> None:
    endpoint = new_endpoint().with_script("commands")
    (endpoint.model_dir / "code" / "requirements.txt").write_text("./no-such-package\n")
    endpoint.start()
    assert endpoint.wait_exit(60) == 3
    assert "code/requirements.txt cannot be installed" in endpoint.events("start_failed")[0]["message"]
    assert not endpoint.events("plan")


def test_the_run_folder_is_nobody_elses(endpoint: Endpoint) -> None:
    (folder,) = endpoint.temporary.glob("multigpu-*")
    assert os.stat(folder).st_mode & 0o777 == 0o700
