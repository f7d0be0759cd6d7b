from __future__ import annotations

import pytest

from multigpu_inference.config import Settings
from multigpu_inference.errors import SettingsError
from multigpu_inference.planner.deployment import Candidate, deploy
from unit.container.multigpu_inference.planner.planned import gpus, simulated_devices


def test_a_deployment_is_what_the_engine_would_make_of_the_settings() -> None:
    deployment = deploy(Candidate("ring", None, None, 5), Settings.from_env({}), gpus(3), stages=2)
    assert deployment.placement == (("cuda:0", "cuda:1"), ("cuda:1", "cuda:2"), ("cuda:2", "cuda:0"))
    assert deployment.devices == deployment.placement
    assert (deployment.capacity.num_replicas, deployment.capacity.pool_workers) == (3, 5)
    assert deployment.max_batch_size == 8


def test_devices_of_the_cpu_are_those_that_there_are() -> None:
    deployment = deploy(Candidate("ring", 4), Settings.from_env({}), simulated_devices(2), stages=2)
    assert deployment.placement == (("cpu:0", "cpu:1"), ("cpu:1", "cpu:2"), ("cpu:2", "cpu:3"), ("cpu:3", "cpu:0"))
    assert deployment.devices == (("cpu:0", "cpu:1"), ("cpu:1", "cpu:0"), ("cpu:0", "cpu:1"), ("cpu:1", "cpu:0"))


def test_the_environment_s_own_values_are_replaced_and_its_others_kept() -> None:
    settings = Settings.from_env({"MULTIGPU_NUM_REPLICAS": "7", "MULTIGPU_STAGE_THREADS": "3"})
    capacity = deploy(Candidate(), settings, gpus(2), stages=1).capacity
    assert (capacity.num_replicas, capacity.threads_per_stage) == (2, 3)


@pytest.mark.parametrize(
    ("environ", "in_flight"),
    [({}, 120), ({"SAGEMAKER_MODEL_SERVER_WORKERS": "9"}, 9), ({"MULTIGPU_FRONT_END": "http"}, 8 * 32 + 16)],
)
def test_multi_model_server_lets_a_limited_number_in(environ: dict[str, str], in_flight: int) -> None:
    assert deploy(Candidate(preprocess_workers=8), Settings.from_env(environ), gpus(8), stages=2).in_flight == in_flight


def test_a_device_that_is_not_there_is_a_setting_that_is_not_allowed() -> None:
    with pytest.raises(SettingsError, match="there is no cuda:5"):
        deploy(Candidate("cuda:0,cuda:5"), Settings.from_env({}), gpus(2), stages=2)


def test_the_environment_has_all_settings_and_the_defaults_as_nothing() -> None:
    assert Candidate("same", 3).environment() == {
        "MULTIGPU_PLACEMENT": "same",
        "MULTIGPU_NUM_REPLICAS": "3",
        "MULTIGPU_MAX_BATCH_SIZE": "",
        "MULTIGPU_PREPROCESS_WORKERS": "",
    }
