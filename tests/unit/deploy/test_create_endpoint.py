from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

from account_state import AccountState
from command_line import parse
from create_endpoint import main
from deploy_error import Invalid
from deploy_progress import DeployProgress
from deploy_settings import ROOT, DeploySettings
from endpoint_status import status_lines, status_of
from plan import Action, Plan
from plan_text import plan_lines
from transform import run_transform, transform_request
from unit.deploy.deployments import StubbedAccount, config, endpoint, settings


def test_a_deployment_needs_none_of_the_containers_packages() -> None:
    lacking = "import sys; sys.modules.update(dict.fromkeys(('torch', 'numpy', 'PIL', 'requests', 'starlette', 'matplotlib')))"
    command = [sys.executable, "-c", f"{lacking}; sys.argv[1:] = ['--help']; import create_endpoint as c; c.main()"]
    done = subprocess.run(command, cwd=ROOT / "deploy", capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    assert "Exit codes: 0 done" in done.stdout


def test_apply_is_what_no_command_means() -> None:
    assert parse([]).command == "apply"
    assert parse(["--yes"]).yes
    invoke = parse(["invoke", "--json", "photo.jpg"])
    assert (invoke.command, invoke.what, invoke.json) == ("invoke", ["photo.jpg"], True)


@pytest.mark.parametrize(
    "argv",
    [
        ["aply"],
        ["invoke"],
        ["plan", "x"],
        ["transform", "s3://a/"],
        ["--no-such"],
        ["plan", "--local"],
        ["--local", "--json"],
        ["--local", "--dry-run"],
        ["logs", "--follow", "--json"],
        ["apply", "--everything"],
        ["status", "--dry-run"],
        ["logs", "--minutes", "nan"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(argv)
    assert raised.value.code == 2


def test_a_plan_in_words() -> None:
    action = Action("sagemaker", "create_endpoint", {"EndpointName": "demo", "Tags": []}, "from here on it costs")
    assert plan_lines(Plan("demo", "c", "ml.g6.12xlarge", (action,), ("a note",))) == [
        "plan for endpoint demo on ml.g6.12xlarge",
        "  1. sagemaker.create_endpoint(EndpointName=demo)",
        "       from here on it costs",
        "note: a note",
    ]
    alarms = Action("cloudwatch", "delete_alarms", {"AlarmNames": ["demo/p99", "demo/Refused"]}, "no more")
    assert plan_lines(Plan("demo", "", "", (alarms,)))[1] == "  1. cloudwatch.delete_alarms(AlarmNames=demo/p99 demo/Refused)"
    assert plan_lines(Plan("demo", "c", "", ()))[-1] == "no change"


def test_the_status_in_words() -> None:
    state = AccountState(
        configs=(config("demo-c-old", 1), config("demo-c-new", follows="demo-c-old")),
        endpoint=endpoint("demo-c-old", "Updating", "demo-c-new"),
        alarms={"demo/p99": {"StateValue": "ALARM"}, "demo/x": {"StateValue": "OK"}},
        target={"MinCapacity": 1, "MaxCapacity": 4},
    )
    assert status_lines(status_of(state, "demo")) == [
        "endpoint demo: Updating with demo-c-old, on its way to demo-c-new",
        "  autoscaling: 1 to 4 instances",
        "* demo-c-old  2026-01-01T11:00:00  ml.g6.12xlarge",
        "  demo-c-new  2026-01-01T12:00:00  ml.g6.12xlarge, follows demo-c-old",
        "  alarm demo/p99: ALARM",
    ]
    assert status_lines(status_of(AccountState(), "demo")) == ["there is no endpoint demo"]


def test_a_transform_job_is_one_that_aws_would_take() -> None:
    state = AccountState(configs=(config("demo-c-new", model="demo-m-1"),), endpoint=endpoint("demo-c-new"))
    deployment = settings(transform={"count": 3})
    request = transform_request(deployment, state, "12.6", "s3://b/in/", "s3://b/out/", "20260101-120000")
    assert (request["ModelName"], request["TransformJobName"]) == ("demo-m-1", "demo-20260101-120000")
    assert request["TransformResources"] == {
        "InstanceType": "ml.g6.12xlarge",
        "InstanceCount": 3,
        "TransformAmiVersion": "al2-ami-sagemaker-batch-gpu-535",
    }
    with pytest.raises(Invalid, match=r"the image has CUDA 13\.0, and batch transform's newest driver is for CUDA 12"):
        transform_request(deployment, state, "13.0", "s3://b/in/", "s3://b/out/", "x")
    on_cpu = transform_request(settings(transform={"type": "ml.c5.xlarge"}), state, "13.0", "s3://b/in/", "s3://b/out/", "x")
    assert on_cpu["Environment"] == {"MULTIGPU_DEVICES": "cpu"}
    assert "TransformAmiVersion" not in on_cpu["TransformResources"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--yes"], "the same command again takes it up"),
        (["rollback"], "`create_endpoint.py status` says how it is"),
        (["transform", "s3://a/", "s3://b/"], "goes on and costs"),
        (["--local"], ""),
        (["status"], ""),
    ],
)
def test_an_interruption_speaks_of_aws_where_something_is_under_way_there(
    argv: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DeploySettings, "from_file", interrupt)
    assert main(argv) == 130
    said = capsys.readouterr().err
    assert said.startswith("create_endpoint: interrupted")
    assert told in said
    assert told or said == "create_endpoint: interrupted\n"


def test_a_transform_job_is_waited_for_while_aws_is_busy() -> None:
    stubbed = StubbedAccount()
    sagemaker, out = stubbed.stub("sagemaker"), io.StringIO()
    request = {"TransformJobName": "demo-1", "TransformOutput": {"S3OutputPath": "s3://b/out/"}}
    sagemaker.add_response("create_transform_job", {"TransformJobArn": "arn:aws:sagemaker:eu-central-1:123456789012:x/y"})
    sagemaker.add_client_error("describe_transform_job", "ThrottlingException", "Rate exceeded")
    sagemaker.add_client_error("describe_transform_job", "ValidationException", "Could not find it")
    needed: dict[str, Any] = {
        "ModelName": "m",
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://b"}}},
    }
    needed["TransformResources"] = {"InstanceType": "ml.g5.12xlarge", "InstanceCount": 1}
    with pytest.raises(Invalid, match="Could not find it"):
        run_transform(stubbed.account, DeployProgress(Console(file=out)), {**request, **needed})
    assert "Rate exceeded" in out.getvalue()
    assert stubbed.slept == [30.0]
