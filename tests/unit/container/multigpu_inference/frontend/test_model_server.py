from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

import multigpu_inference
from multigpu_inference.config import Settings
from multigpu_inference.errors import StartupError
from multigpu_inference.frontend import request
from multigpu_inference.frontend.model_server import ModelServer, StoppedProcesses, check, environment, max_workers, prepare

CONTAINER = str(Path(multigpu_inference.__file__).parents[1])
RUN_DIR = Path("/run/x")


def _environment(inherited: dict[str, str] | None = None, **settings: str) -> dict[str, str]:
    return environment(Settings.from_env(settings), RUN_DIR, 7, inherited or {})


def test_the_front_end_waits_longer_than_its_worker_and_the_worker_longer_than_the_engine() -> None:
    seconds = _environment(MULTIGPU_REQUEST_TIMEOUT_S="12.5")["SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS"]
    assert int(seconds) > 12.5 + request.ENGINE_GRACE_S > 12.5


def test_limits_and_counts_reach_multi_model_server() -> None:
    made = _environment(SAGEMAKER_MAX_PAYLOAD_IN_MB="6", SAGEMAKER_BIND_TO_PORT="8081")
    assert made["SAGEMAKER_MAX_PAYLOAD_IN_MB"] == "6"
    assert made["MMS_MAX_RESPONSE_SIZE"] == str(6 << 20)
    assert made["SAGEMAKER_BIND_TO_PORT"] == "8081"
    assert made["SAGEMAKER_MODEL_SERVER_WORKERS"] == "7"
    assert made["MMS_PRELOAD_MODEL"] == "true"


def test_the_users_flags_for_the_jvm_come_last() -> None:
    assert _environment(SAGEMAKER_MODEL_SERVER_VMARGS="-Xmx1g")["SAGEMAKER_MODEL_SERVER_VMARGS"].endswith(" -Xmx1g")


def test_sockets_and_temporary_files_stand_in_the_run_folder() -> None:
    made = _environment({"TMPDIR": "/elsewhere", "TEMP": "/elsewhere"})
    assert made["TMPDIR"] == made["TEMP"] == "/run/x/front-end"
    assert made["MMS_MANAGEMENT_ADDRESS"] == "unix:/run/x/front-end/management.sock"


def test_this_environments_programs_are_found_first() -> None:
    assert _environment({"PATH": "/bin"})["PATH"] == f"{Path(sys.executable).parent}:/bin"


def test_the_workers_find_this_package_where_it_is_not_installed() -> None:
    assert _environment({"PYTHONPATH": "/a:"})["PYTHONPATH"].split(os.pathsep) == ["/a", CONTAINER]
    assert _environment({"PYTHONPATH": CONTAINER})["PYTHONPATH"] == CONTAINER


def test_multi_model_mode_is_off_whatever_was_asked() -> None:
    assert _environment({"SAGEMAKER_MULTI_MODEL": "true"})["SAGEMAKER_MULTI_MODEL"] == "false"


def test_a_run_folder_too_deep_for_sockets_is_refused() -> None:
    check(Path("/" + "x" * 70))
    with pytest.raises(StartupError, match="too long"):
        check(Path("/" + "x" * 100))


def test_what_an_unclean_stop_left_is_removed(tmp_path: Path) -> None:
    prepare(tmp_path)
    tmp_path.joinpath("front-end", ".model_server.pid").write_text("1")
    tmp_path.joinpath("front-end-parent.pid").write_text("1")
    prepare(tmp_path)
    assert not tmp_path.joinpath("front-end-parent.pid").exists()
    own = tmp_path / "front-end"
    assert sorted(path.name for path in own.iterdir()) == ["defaults.properties", "model"]
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_there_are_never_more_workers_than_the_backlog_takes() -> None:
    assert ModelServer(RUN_DIR, Settings.from_env({}), 500)._workers == 120


def test_a_process_is_stopped_when_two_looks_in_a_row_find_it_so() -> None:
    now: set[int] = set()
    stopped = StoppedProcesses(lambda pid: pid in now, looks=2)
    found = []
    for now in ({1}, {2}, {1}, {1, 2}, {1, 2}, {1, 2}):  # noqa: B007 the lambda reads it
        found.append(stopped.look([1, 2]))
    assert found == [[], [], [], [1], [2], []]


@pytest.mark.parametrize(("descriptors", "workers"), [(256, 48), (1024, 120), (1 << 20, 120), (30, 1)])
def test_there_are_no_more_workers_than_there_are_descriptors_for(descriptors: int, workers: int) -> None:
    assert max_workers(descriptors) == workers
