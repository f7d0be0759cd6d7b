"""How the image gets into the repository: docker's push, and CodeBuild."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest

from integration.deploy.command import Cli, put_image
from integration.deploy.fake_aws import FakeAws

pytestmark = pytest.mark.deploy

# Stands for docker: it knows one image, and its push puts a manifest into the registry as docker's does.
FAKE_DOCKER = """#!{python}
import hashlib, json, os, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if arguments[0] == "login":
    sys.stdin.read()
elif arguments[:2] == ["image", "inspect"]:
    if not os.path.exists({image!r}):
        sys.exit("No such image")
    print("sha256:" + hashlib.sha256(open({image!r}, "rb").read()).hexdigest())
elif arguments[0] == "push":
    sys.path[:0] = {path!r}
    import boto3
    from integration.deploy.command import put_image
    put_image(boto3.client("ecr"), config=open({image!r}, "rb").read(), tag=arguments[1].rpartition(":")[2])
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A docker, as a log of its calls and the file that stands for the local image."""
    program, log, image = tmp_path / "docker", tmp_path / "docker.log", tmp_path / "image"
    image.write_bytes(b"first build")
    program.write_text(FAKE_DOCKER.format(python=sys.executable, log=str(log), image=str(image), path=sys.path))
    program.chmod(0o755)
    monkeypatch.setenv("DOCKER", str(program))
    return log, image


def local_image(cli: Cli) -> None:
    cli.write()
    cli.settings.write_text(cli.settings.read_text().replace('source = "repository"', 'source = "docker"'))


def test_the_local_image_is_pushed_where_it_is_another_one(
    cli: Cli, aws: FakeAws, docker: tuple[Path, Path], shared_session: boto3.Session
) -> None:
    log, image = docker
    shared_session.client("ecr").delete_repository(repositoryName="multigpu-inference", force=True)
    local_image(cli)
    plan = cli("plan", "--json")
    assert plan.code == 0, plan.err
    operations = [action["operation"] for action in plan.data["actions"]]
    assert operations.index("create_repository") < operations.index("push") < operations.index("create_model")
    assert "the hashes in names follow from the image's digest, which the push gives" in plan.data["notes"]

    made = cli("apply", "--yes")
    assert made.code == 0, made.err
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    login = next(call for call in calls if call[0] == "login")
    assert login[1:4] == ["--username", "AWS", "--password-stdin"], "the password stands in no command line"
    config = next(iter(aws.configs.values()))
    model = shared_session.client("sagemaker").describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
    assert "@sha256:" in model["PrimaryContainer"]["Image"]
    assert "0000000000" not in model["PrimaryContainer"]["Image"]
    tags = {
        image.get("imageTag")
        for image in shared_session.client("ecr").list_images(repositoryName="multigpu-inference")["imageIds"]
    }
    assert any(tag and tag.startswith("deployed-") for tag in tags), "what is deployed is spared by the lifecycle"

    aws.calls.clear()
    log.unlink()
    assert cli("apply").code == 0, "the image is there already"
    assert aws.writes == []
    assert "push" not in log.read_text()

    image.write_bytes(b"second build")
    assert cli("apply", "--yes").code == 0
    assert len(aws.configs) == 2

    assert cli("delete", "--yes").code == 0
    done = cli("delete", "--yes", "--everything")
    assert done.code == 0, done.err
    repositories = shared_session.client("ecr").describe_repositories()["repositories"]
    assert repositories == [], "the tags say that both images were this deployment's"


def test_no_local_image_is_said_before_anything_is_made(cli: Cli, aws: FakeAws, docker: tuple[Path, Path]) -> None:
    docker[1].unlink()
    local_image(cli)
    ended = cli("apply", "--yes")
    assert ended.code == 2
    assert "there is no such image on this machine: `make image` builds it" in ended.err
    assert aws.writes == []


def test_no_image_in_the_repository_is_exit_code_2(cli: Cli, repository: Any) -> None:
    repository.batch_delete_image(repositoryName="multigpu-inference", imageIds=[{"imageTag": "latest"}])
    ended = cli("plan")
    assert ended.code == 2
    assert "there is no image multigpu-inference:latest in ECR" in ended.err


def test_codebuild_builds_the_commit_once(cli: Cli, aws: FakeAws, repository: Any) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    text = cli.settings.read_text()
    cli.settings.write_text(
        text.replace('source = "repository"', f'source = "codebuild"\nproject = "endpoint"\nrevision = "{commit}"')
    )
    aws.on_build = lambda request: put_image(repository, config=b"built", tag=request["sourceVersion"][:12])
    made = cli("apply", "--yes")
    assert made.code == 0, made.err
    assert aws.calls.count("codebuild.StartBuild") == 1
    aws.calls.clear()
    assert cli("apply").code == 0
    assert aws.writes == []


def test_a_build_that_fails_is_exit_code_2_and_names_the_phase(cli: Cli, aws: FakeAws, repository: Any) -> None:
    text = cli.settings.read_text()
    cli.settings.write_text(
        text.replace('source = "repository"', 'source = "codebuild"\nproject = "endpoint"\nrevision = "0123456789ab"')
    )
    aws.build_status = "FAILED"
    ended = cli("apply", "--yes")
    assert ended.code == 2
    assert "ended FAILED in PRE_BUILD" in ended.err
    assert aws.endpoints == {}
