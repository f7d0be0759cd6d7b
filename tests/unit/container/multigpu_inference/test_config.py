from __future__ import annotations

from pathlib import Path

import pytest

from multigpu_inference.config import (
    AccelerationSettings,
    EngineSettings,
    FrontEndSettings,
    ModelSettings,
    SecuritySettings,
    Settings,
    TelemetrySettings,
)
from multigpu_inference.errors import SettingsError, StartupError
from multigpu_inference.url_fetch.policy import UrlPolicy


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings(
        model=ModelSettings(base_dir=Path("/opt/ml"), program="inference.py", default_accept=None),
        front_end=FrontEndSettings(
            kind="mms",
            port=8080,
            workers=None,
            max_payload_bytes=25 * 1024 * 1024,
            vmargs="-Xmx2g -XX:+UseParallelGC -XX:TieredStopAtLevel=1",
        ),
        engine=EngineSettings(
            devices="auto",
            num_replicas=None,
            min_replicas=1,
            placement="ring",
            mps=False,
            preprocess="auto",
            preprocess_workers=None,
            preprocess_timeout_s=20.0,
            preprocess_memory_bytes=4 << 30,
            max_queue_size=None,
            request_timeout_s=55.0,
            startup_timeout_s=600.0,
            stage_threads=None,
            streams_per_stage=1,
            max_batch_size=None,
            max_batch_delay_ms=0.0,
            trace=False,
        ),
        acceleration=AccelerationSettings(dtype="float32", channels_last=None, cuda_graphs=False, compile=False),
        telemetry=TelemetrySettings(cloudwatch=False, endpoint_name="", otlp_endpoint=None),
        security=SecuritySettings(user=None, aws_credentials=False),
        urls=UrlPolicy(),
    )


def test_every_setting_can_be_given() -> None:
    environ = {
        "SAGEMAKER_BASE_DIR": "/srv/ml",
        "SAGEMAKER_PROGRAM": "serve_it.py",
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "image/png",
        "SAGEMAKER_BIND_TO_PORT": "9000",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "7",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "6",
        "SAGEMAKER_MODEL_SERVER_VMARGS": "-Xmx1g",
        "MULTIGPU_DEVICES": "cuda",
        "MULTIGPU_NUM_REPLICAS": "3",
        "MULTIGPU_PLACEMENT": "same",
        "MULTIGPU_MPS": "1",
        "MULTIGPU_PREPROCESS": "pool",
        "MULTIGPU_PREPROCESS_WORKERS": "5",
        "MULTIGPU_PREPROCESS_TIMEOUT_S": "1.5",
        "MULTIGPU_PREPROCESS_MEMORY_MB": "0",
        "MULTIGPU_MAX_QUEUE_SIZE": "0",
        "MULTIGPU_REQUEST_TIMEOUT_S": "2.5",
        "MULTIGPU_STARTUP_TIMEOUT_S": "30",
        "MULTIGPU_STAGE_THREADS": "4",
        "MULTIGPU_MAX_BATCH_SIZE": "16",
        "MULTIGPU_MAX_BATCH_DELAY_MS": "1.5",
        "MULTIGPU_TRACE": "1",
        "MULTIGPU_DTYPE": "bfloat16",
        "MULTIGPU_CHANNELS_LAST": "0",
        "MULTIGPU_CUDA_GRAPHS": "1",
        "MULTIGPU_COMPILE": "1",
        "MULTIGPU_TENSORRT": "1",
        "MULTIGPU_FRONT_END": "http",
        "MULTIGPU_MIN_REPLICAS": "2",
        "MULTIGPU_CLOUDWATCH": "1",
        "MULTIGPU_URLS": "off",
        "MULTIGPU_URL_HOSTS": "example.com",
        "MULTIGPU_ENDPOINT_NAME": "mattes",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "MULTIGPU_USER": "serving",
        "MULTIGPU_AWS_CREDENTIALS": "1",
    }
    assert Settings.from_env(environ) == Settings(
        model=ModelSettings(Path("/srv/ml"), "serve_it.py", "image/png"),
        front_end=FrontEndSettings("http", 9000, 7, 6 * 1024 * 1024, "-Xmx1g"),
        engine=EngineSettings("cuda", 3, 2, "same", True, "pool", 5, 1.5, 0, 0, 2.5, 30.0, 4, 1, 16, 1.5, True),
        acceleration=AccelerationSettings("bfloat16", False, True, True, True),
        telemetry=TelemetrySettings(True, "mattes", "http://collector:4318"),
        security=SecuritySettings("serving", True),
        urls=UrlPolicy(enabled=False, hosts=("example.com",)),
    )


def test_streams_of_a_stage_and_captured_graphs_exclude_each_other() -> None:
    assert Settings.from_env({"MULTIGPU_STREAMS_PER_STAGE": "4"}).engine.streams_per_stage == 4
    with pytest.raises(SettingsError, match=r"MULTIGPU_STREAMS_PER_STAGE=4 with MULTIGPU_CUDA_GRAPHS=1: .* one of the two"):
        Settings.from_env({"MULTIGPU_STREAMS_PER_STAGE": "4", "MULTIGPU_CUDA_GRAPHS": "1"})


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_value_is_the_default(value: str) -> None:
    environ = {"MULTIGPU_NUM_REPLICAS": value, "MULTIGPU_DEVICES": value, "MULTIGPU_REQUEST_TIMEOUT_S": value}
    assert Settings.from_env(environ) == Settings.from_env({})


def test_space_and_case_around_a_choice_do_not_matter() -> None:
    assert Settings.from_env({"MULTIGPU_DEVICES": " CPU "}).engine.devices == "cpu"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MULTIGPU_DEVICES", "tpu", "auto, cuda, cpu"),
        ("MULTIGPU_PREPROCESS", "process", "auto, pool, replica"),
        ("MULTIGPU_MAX_BATCH_SIZE", "0", "from 1 to 1024"),
        ("MULTIGPU_STREAMS_PER_STAGE", "0", "from 1 to 1024"),
        ("MULTIGPU_MAX_BATCH_DELAY_MS", "-1", "a number of milliseconds from 0 to 10000"),
        ("MULTIGPU_PREPROCESS_TIMEOUT_S", "0", "a number of seconds from 0.1 to 3600"),
        ("MULTIGPU_PREPROCESS_MEMORY_MB", "4 GB", "from 0 to 1048576"),
        ("MULTIGPU_DTYPE", "int8", "float32, float16, bfloat16"),
        ("MULTIGPU_COMPILE", "yes", "0 and 1"),
        ("MULTIGPU_FRONT_END", "nginx", "mms, http"),
        ("MULTIGPU_MIN_REPLICAS", "0", "from 1 to 256"),
        ("MULTIGPU_CLOUDWATCH", "yes", "auto, 0, 1"),
        ("MULTIGPU_URL_PORTS", "any", "ports from 1 to 65535"),
        ("MULTIGPU_AWS_CREDENTIALS", "true", "0 and 1"),
        ("MULTIGPU_USER", "1000", "names of users, and root"),
        ("MULTIGPU_USER", "two words", "names of users, and root"),
        ("MULTIGPU_NUM_REPLICAS", "0", "from 1 to 256"),
        ("MULTIGPU_NUM_REPLICAS", "257", "from 1 to 256"),
        ("MULTIGPU_NUM_REPLICAS", "-1", "from 1 to 256"),
        ("MULTIGPU_NUM_REPLICAS", "1.5", "from 1 to 256"),
        ("MULTIGPU_NUM_REPLICAS", "two", "from 1 to 256"),
        ("MULTIGPU_NUM_REPLICAS", "٣", "from 1 to 256"),
        ("MULTIGPU_PREPROCESS_WORKERS", "1025", "from 1 to 1024"),
        ("MULTIGPU_MAX_QUEUE_SIZE", "100001", "from 0 to 100000"),
        ("MULTIGPU_STAGE_THREADS", "0", "from 1 to 1024"),
        ("MULTIGPU_REQUEST_TIMEOUT_S", "0", "from 0.1 to 3600"),
        ("MULTIGPU_REQUEST_TIMEOUT_S", "nan", "from 0.1 to 3600"),
        ("MULTIGPU_REQUEST_TIMEOUT_S", "inf", "from 0.1 to 3600"),
        ("MULTIGPU_REQUEST_TIMEOUT_S", "55s", "from 0.1 to 3600"),
        ("MULTIGPU_STARTUP_TIMEOUT_S", "3601", "from 1 to 3600"),
        ("SAGEMAKER_BIND_TO_PORT", "0", "from 1 to 32766"),
        ("SAGEMAKER_BIND_TO_PORT", "32767", "from 1 to 32766"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "121", "from 1 to 120"),
        ("SAGEMAKER_MAX_PAYLOAD_IN_MB", "0", "from 1 to 1000"),
        ("SAGEMAKER_PROGRAM", "src/inference.py", "a file name within the code folder"),
        ("SAGEMAKER_PROGRAM", "../inference.py", "a file name within the code folder"),
        ("SAGEMAKER_PROGRAM", "..", "a file name within the code folder"),
    ],
)
def test_a_bad_value_stops_with_its_name_itself_and_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_env({name: value})
    assert f"{name}={value!r}" in str(error.value)
    assert allowed in str(error.value)


def test_a_number_of_thousands_of_digits_is_a_bad_value_too() -> None:
    with pytest.raises(SettingsError, match="MULTIGPU_NUM_REPLICAS"):
        Settings.from_env({"MULTIGPU_NUM_REPLICAS": "9" * 5000})


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("MULTIGPU_NUM_REPLICA", "MULTIGPU_NUM_REPLICAS"),
        ("MULTIGPU_PREPROCES", "MULTIGPU_PREPROCESS"),
        ("MULTIGPU_PREPROCESS_WORKER", "MULTIGPU_PREPROCESS_WORKERS"),
        ("MULTIGPU_DEVICE", "MULTIGPU_DEVICES"),
        ("MULTIGPU_REQUEST_TIMEOUT", "MULTIGPU_REQUEST_TIMEOUT_S"),
        ("MULTIGPU_REQUEST_TIMEOUT_MS", "MULTIGPU_REQUEST_TIMEOUT_S"),
    ],
)
def test_a_misspelt_name_stops_and_suggests_the_right_one(misspelt: str, meant: str) -> None:
    with pytest.raises(SettingsError, match=rf"{misspelt} is not a setting; did you mean {meant}\?"):
        Settings.from_env({misspelt: "1"})


def test_a_scripts_own_name_passes() -> None:
    assert Settings.from_env({"MULTIGPU_MATTING_MAX_PIXELS": "1000"}) == Settings.from_env({})


@pytest.mark.parametrize("program", ["serve_it", "serve_it.py"])
def test_the_program_may_be_named_with_or_without_its_ending(program: str) -> None:
    model = Settings.from_env({"SAGEMAKER_PROGRAM": program}).model
    assert model.script == Path("/opt/ml/model/code/serve_it.py")


def test_the_model_folders_hang_on_the_base_folder() -> None:
    model = Settings.from_env({"SAGEMAKER_BASE_DIR": "/srv"}).model
    assert (model.model_dir, model.code_dir) == (Path("/srv/model"), Path("/srv/model/code"))
    assert model.script == Path("/srv/model/code/inference.py")


@pytest.mark.parametrize("value", ["true", "True"])
def test_several_models_are_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="SAGEMAKER_MULTI_MODEL"):
        Settings.from_env({"SAGEMAKER_MULTI_MODEL": value})


def test_one_model_said_aloud_is_fine() -> None:
    assert Settings.from_env({"SAGEMAKER_MULTI_MODEL": "false"}) == Settings.from_env({})


def test_a_bad_setting_is_an_exit_code_of_its_own() -> None:
    assert (SettingsError.exit_code, StartupError.exit_code) == (2, 3)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials"}, True),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials", "MULTIGPU_CLOUDWATCH": "0"}, False),
        ({"MULTIGPU_CLOUDWATCH": "1"}, True),
    ],
)
def test_cloudwatch_is_on_where_aws_hands_out_credentials(environ: dict[str, str], expected: bool) -> None:
    assert Settings.from_env(environ).telemetry.cloudwatch is expected
