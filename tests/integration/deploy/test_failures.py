"""Every exit code by way of the command line, what is then there, and that the same command given again goes on."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import boto3
import pytest

from integration.deploy.command import Cli, pack, put_image
from integration.deploy.fake_aws import FakeAws
from policies import TRUST

pytestmark = pytest.mark.deploy

SCRIPT = Path(__file__).resolve().parents[3] / "deploy" / "create_endpoint.py"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as a process of its own, without a terminal."""
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50, env=os.environ | environment
    )


def test_without_a_terminal_and_without_yes_nothing_is_changed(cli: Cli, aws: FakeAws) -> None:
    ended = run("--settings", str(cli.settings))
    assert ended.returncode == 2
    assert "there is no terminal to ask on; --yes says yes" in ended.stderr
    assert "sagemaker.create_endpoint" in ended.stdout, "what would have been done"
    assert "Traceback" not in ended.stderr
    assert aws.writes == []


def test_credentials_that_aws_refuses_are_exit_code_3(cli: Cli, aws: FakeAws) -> None:
    aws.denied.add("sts.GetCallerIdentity")
    ended = run("plan", "--settings", str(cli.settings))
    assert ended.returncode == 3
    assert ended.stderr.strip().splitlines()[-1].startswith("create_endpoint: sts.get_caller_identity: User is not authorized")
    assert "policies" in ended.stderr


def test_settings_that_are_not_allowed_are_exit_code_2(cli: Cli, aws: FakeAws) -> None:
    cli.write(instance_type="ml.g6.13xlarge")
    ended = cli("plan")
    assert ended.code == 2
    assert "InstanceType='ml.g6.13xlarge': not a value that AWS knows; near are ml.g6" in ended.err

    cli.write(environment='MULTIGPU_PLACEMENT = "cuda:0,cuda:9"')
    ended = cli("plan")
    assert ended.code == 2
    assert "there is no cuda:9" in ended.err

    cli.write(top='rolle = "x"')
    assert "rolle is not a setting; did you mean role?" in cli("plan").err
    assert aws.writes == []


def test_an_endpoint_of_somebody_else_is_left_alone(cli: Cli, aws: FakeAws, shared_session: boto3.Session) -> None:
    cli("apply", "--yes")
    aws.endpoints["demo"].tags.clear()
    cli.write(weights=b"other")
    for command in ("apply", "delete", "rollback"):
        aws.calls.clear()
        ended = cli(command, "--yes")
        assert ended.code == 2
        assert "has not been made here" in ended.err
        assert aws.writes == []


def test_an_image_that_sagemaker_would_refuse_is_exit_code_2(cli: Cli, aws: FakeAws, repository: Any) -> None:
    aws.image_config["architecture"] = "arm64"
    assert "is for arm64: build it with --platform linux/amd64" in cli("plan").err
    aws.image_config["architecture"] = "amd64"
    aws.image_config["config"] = {"Labels": {"com.multigpu-inference.torch-build": "cpu"}}
    assert "the image has a CPU build of torch" in cli("plan").err
    put_image(repository, "application/vnd.oci.image.manifest.v1+json", b"oci")
    assert "SageMaker takes Docker's only" in cli("plan").err
    assert aws.writes.count("sagemaker.CreateModel") == 0


def test_a_quota_of_zero_is_exit_code_3_before_anything_is_made(cli: Cli, aws: FakeAws) -> None:
    aws.quota = 0
    ended = cli("apply", "--yes")
    assert ended.code == 3
    assert "the quota 'ml.g6.12xlarge for endpoint usage' is 0, 1 needed" in ended.err
    assert aws.writes == []


def test_what_the_deployer_may_not_do_is_exit_code_3(cli: Cli, aws: FakeAws) -> None:
    aws.denied.add("sagemaker.CreateEndpoint")
    ended = cli("apply", "--yes")
    assert ended.code == 3
    assert "sagemaker.create_endpoint: User is not authorized" in ended.err
    aws.denied.clear()
    assert cli("apply", "--yes").code == 0


def test_the_next_type_is_taken_where_there_is_no_capacity(cli: Cli, aws: FakeAws) -> None:
    cli.write(fallback=("ml.g5.12xlarge", "ml.g4dn.12xlarge"))
    aws.no_capacity = {"ml.g6.12xlarge", "ml.g5.12xlarge"}
    made = cli("apply", "--yes")
    assert made.code == 0, made.err
    assert "not on ml.g6.12xlarge: endpoint demo failed; SageMaker: Unable to provision" in made.err
    config = aws.configs[aws.endpoints["demo"].config]
    assert config["ProductionVariants"][0]["InstanceType"] == "ml.g4dn.12xlarge"

    aws.calls.clear()
    assert cli("apply").code == 0, "the fallback stays, though there may be capacity for the first type now"
    assert aws.writes == []


def test_no_capacity_for_any_type_is_exit_code_4(cli: Cli, aws: FakeAws) -> None:
    cli.write(fallback=("ml.g5.12xlarge",))
    aws.no_capacity = {"ml.g6.12xlarge", "ml.g5.12xlarge"}
    ended = cli("apply", "--yes")
    assert ended.code == 4
    assert "no capacity for ml.g6.12xlarge, ml.g5.12xlarge" in ended.err
    aws.no_capacity.clear()
    assert cli("apply", "--yes").code == 0
    aws.no_capacity = {"ml.g6.12xlarge", "ml.g5.12xlarge"}
    cli.write(fallback=("ml.g5.12xlarge",), weights=b"other")
    assert cli("apply", "--yes").code == 4
    assert aws.endpoints["demo"].status == "InService", "an update that finds no capacity leaves what serves"


def test_an_endpoint_that_fails_is_exit_code_5_with_the_line_of_the_log(
    cli: Cli, aws: FakeAws, shared_session: boto3.Session
) -> None:
    logs, group = shared_session.client("logs"), "/aws/sagemaker/Endpoints/demo"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="main/i-1")
    lines = [
        '{"event": "starting", "source": "supervisor"}',
        '{"event": "start_failed", "source": "engine", "message": "model_fn: no checkpoint.pth"}',
    ]
    now = int(time.time() * 1000)
    events = [{"timestamp": now + index, "message": line} for index, line in enumerate(lines)]
    logs.put_log_events(logGroupName=group, logStreamName="main/i-1", logEvents=events)
    aws.outcomes.append("failed")
    ended = cli("apply", "--yes")
    assert ended.code == 5
    last = ended.err.strip().splitlines()[-1]
    assert "SageMaker: The primary container for production variant main did not pass the ping health check" in last
    assert "log: engine: start failed message=model_fn: no checkpoint.pth" in last
    assert "try it here first with --local" in last
    assert "│ supervisor: starting" in ended.err, "the log is shown while the endpoint starts"
    assert cli("apply", "--yes").code == 0, "the endpoint that failed is replaced"


def test_an_update_that_rolls_back_is_exit_code_6(cli: Cli, aws: FakeAws) -> None:
    cli("apply", "--yes")
    before, archive = aws.endpoints["demo"].config, cli.archive.read_bytes()
    cli.write(weights=b"other")
    aws.outcomes.append("rolled back")
    ended = cli("apply", "--yes", "--json")
    assert (ended.code, ended.data["exit_code"]) == (6, 6)
    assert f"is InService with {before} as before" in ended.data["error"]
    aws.outcomes.append("rollback failed")
    ended = cli("apply", "--yes")
    assert ended.code == 6
    assert "update and rollback failed" in ended.err
    cli.archive.write_bytes(archive)
    again = cli("apply", "--yes")
    assert again.code == 0, again.err
    assert "sagemaker update endpoint" in again.err, "of what was served before: a mix of the two serves"
    assert (aws.endpoints["demo"].status, aws.endpoints["demo"].config) == ("InService", before)


def test_alarms_of_somebody_else_are_left_alone(cli: Cli, aws: FakeAws, shared_session: boto3.Session) -> None:
    cloudwatch = shared_session.client("cloudwatch")
    common: dict[str, Any] = {"Namespace": "x", "MetricName": "y", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1}
    common |= {"Threshold": 1.0, "ComparisonOperator": "GreaterThanThreshold"}
    cloudwatch.put_metric_alarm(AlarmName="demo/of-the-team", **common)
    for arguments in (("apply",), ("delete", "--everything")):
        assert cli(*arguments, "--yes").code == 0
    assert [alarm["AlarmName"] for alarm in cloudwatch.describe_alarms()["MetricAlarms"]] == ["demo/of-the-team"]

    cloudwatch.put_metric_alarm(AlarmName="demo/p99", **common)
    cli.write(more="[alarms]\n")
    shared_session.client("ecr").create_repository(repositoryName="multigpu-inference")
    put_image(shared_session.client("ecr"))
    aws.calls.clear()
    refused = cli("apply", "--yes")
    assert refused.code == 2
    assert "alarm demo/p99 is there and has not been made here" in refused.err
    assert aws.writes == []


def test_there_is_nothing_to_roll_back_to_before_an_update(cli: Cli, aws: FakeAws) -> None:
    assert cli("rollback", "--yes").code == 2
    cli("apply", "--yes")
    ended = cli("rollback", "--yes")
    assert ended.code == 2
    assert "there is no configuration before" in ended.err


def test_a_replica_that_never_answers_is_exit_code_7(cli: Cli, aws: FakeAws) -> None:
    aws.silent = {2}
    ended = cli("apply", "--yes")
    assert ended.code == 7
    assert "replicas 2 of 4 never answered" in ended.err
    aws.silent = set()
    assert cli("apply", "--yes").code == 0


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ((500, '{"error": "internal"}'), "the container answered 500"),
        ((0, ""), "no answer within 60 s"),
        ((503, "overloaded"), "refused as overloaded"),
    ],
)
def test_a_container_that_answers_with_an_error_is_exit_code_7(
    cli: Cli, aws: FakeAws, error: tuple[int, str], text: str
) -> None:
    cli.write(more="attempts = 5")
    aws.invocation_error = error
    ended = cli("apply", "--yes")
    assert ended.code == 7
    assert text in ended.err


def test_an_endpoint_that_takes_too_long_is_exit_code_8_and_the_next_run_waits_on(cli: Cli, aws: FakeAws) -> None:
    cli.write(more="[update]\nwait_limit_s = 60\n")
    aws.outcomes.append("stuck")
    ended = cli("apply", "--yes")
    assert ended.code == 8
    assert "is Creating after 70 s: run the command again to wait on" in ended.err
    aws.endpoints["demo"].way = deque(["Creating", "InService"])
    aws.endpoints["demo"].way_back = False
    aws.calls.clear()
    assert cli("apply").code == 0
    assert aws.writes == []


def test_what_was_not_agreed_to_is_not_done_where_a_run_only_waited(cli: Cli, aws: FakeAws) -> None:
    cli.write(fallback=("ml.g5.12xlarge",), more="[update]\nwait_limit_s = 60\n")
    aws.outcomes.append("stuck")
    assert cli("apply", "--yes").code == 8
    endpoint = aws.endpoints["demo"]
    endpoint.way, endpoint.reason = deque(["Creating", "Failed"]), "InsufficientInstanceCapacity"
    aws.calls.clear()
    ended = cli("apply")  # waits on, and would then take the next type
    assert ended.code == 2
    assert "there is no terminal to ask on" in ended.err
    assert aws.writes == []


def test_a_role_that_is_not_known_yet_is_waited_for(cli: Cli, aws: FakeAws) -> None:
    aws.young_roles = 3
    assert cli("apply", "--yes").code == 0


def test_an_update_of_somebody_else_is_waited_for_first(cli: Cli, aws: FakeAws, shared_session: boto3.Session) -> None:
    cli("apply", "--yes")
    cli.write(weights=b"other")
    cli("apply", "--yes")
    first, second = aws.configs
    shared_session.client("sagemaker").update_endpoint(EndpointName="demo", EndpointConfigName=first)
    done = cli("apply", "--yes")
    assert done.code == 0, done.err
    assert "waiting for what is under way already" in done.err
    assert aws.endpoints["demo"].config == second


@pytest.mark.parametrize(
    ("action", "number", "code"),
    [
        ("sagemaker.CreateModel", signal.SIGKILL, -signal.SIGKILL),
        ("sagemaker.CreateEndpoint", signal.SIGKILL, -signal.SIGKILL),
        ("sagemaker.DescribeEndpoint", signal.SIGINT, 130),
    ],
)
def test_killed_half_way_and_run_again(cli: Cli, aws: FakeAws, action: str, number: int, code: int) -> None:
    reached, released = threading.Event(), threading.Event()

    def hold(call: str) -> None:
        if call == action:
            reached.set()
            assert released.wait(30)

    aws.hold = hold
    command = [sys.executable, str(SCRIPT), "apply", "--yes", "--settings", str(cli.settings)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert reached.wait(40)
    finally:
        process.send_signal(number)
        assert process.wait(20) == code
        aws.hold = lambda _: None
        released.set()  # AWS carries the call out all the same, after the process is gone
    done = cli("apply", "--yes")
    assert done.code == 0, done.err
    assert aws.endpoints["demo"].status == "InService"
    assert len(aws.configs) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("said", "code"), [("y\n", 0), ("n\n", 2), ("", 2)])
def test_on_a_terminal_it_asks_before_it_spends(
    cli: Cli, aws: FakeAws, monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(said))
    ended = cli("apply")
    assert ended.code == code
    assert "Go on? [y/N]" in ended.err
    assert "5.75 USD an hour" in ended.out, "the price is shown before it asks"
    assert bool(aws.writes) == (code == 0)


def test_what_is_uploaded_is_what_was_agreed_to(cli: Cli, aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    class Meanwhile(Terminal):
        def isatty(self) -> bool:
            pack(cli.archive, b"other weights")
            return True

    monkeypatch.setattr("sys.stdin", Meanwhile("y\n"))
    ended = cli("apply")
    assert ended.code == 2
    assert "has been changed since the plan was made: run the command again" in ended.err
    assert aws.endpoints == {}


def test_a_process_without_a_standard_input_is_not_asked(cli: Cli, aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    ended = cli("apply")
    assert ended.code == 2
    assert "there is no terminal to ask on" in ended.err
    ended = cli("apply", "--json")
    assert (ended.code, ended.data["exit_code"]) == (2, 2)
    assert "--json shows the plan only at its end" in ended.err
    assert aws.writes == []


def test_a_role_whose_policy_is_not_known_yet_is_waited_for_and_one_of_ones_own_is_not(
    cli: Cli, aws: FakeAws, shared_session: boto3.Session
) -> None:
    aws.young_roles, aws.young_role_text = 3, "Could not access model data at s3://x. Please ensure that the role exists"
    assert cli("apply", "--yes").code == 0
    role = shared_session.client("iam").create_role(RoleName="mine", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]
    cli.write(top=f'role = "{role["Arn"]}"')
    aws.young_roles = 3
    ended = cli("apply", "--yes")
    assert ended.code == 2
    assert "Could not access model data" in ended.err


def test_a_role_that_may_not_be_looked_at_is_no_obstacle(cli: Cli, aws: FakeAws) -> None:
    aws.denied.add("iam.GetRole")
    cli.write(top='role = "arn:aws:iam::123456789012:role/teams/mine"')
    plan = cli("plan", "--json")
    assert plan.code == 0, plan.err
    assert any("its trust is not checked" in warning for warning in plan.data["warnings"])


def test_a_rollback_asks_the_replicas_of_what_it_goes_back_to(cli: Cli, aws: FakeAws) -> None:
    cli.write(environment='MULTIGPU_NUM_REPLICAS = "2"')
    aws.replicas = 2
    assert cli("apply", "--yes").code == 0
    cli.write(environment='MULTIGPU_NUM_REPLICAS = "4"')
    aws.replicas = 4
    assert cli("apply", "--yes").code == 0
    aws.replicas = 2
    back = cli("rollback", "--yes")
    assert back.code == 0, back.err
    assert "2 real requests answered, by 2 replicas" in back.err


def test_an_answer_that_cannot_be_written_is_one_line(cli: Cli, aws: FakeAws, tmp_path: Path) -> None:
    cli("apply", "--yes")
    ended = cli("invoke", "demo/photos/chick.jpg", "--output", str(tmp_path / "nowhere" / "a.png"))
    assert ended.code == 2
    assert "name another file with --output FILE" in ended.err
