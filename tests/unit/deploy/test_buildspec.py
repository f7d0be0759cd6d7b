"""buildspec.yml: its commands are shell that bash can read, and an image that SageMaker refuses ends the build."""

from __future__ import annotations

import subprocess

import pytest
import yaml  # type: ignore[import-untyped]

from deploy_settings import COMMIT_LENGTH, ROOT

BUILD = yaml.safe_load((ROOT / "buildspec.yml").read_text())
COMMANDS = [command for phase in BUILD["phases"].values() for command in phase["commands"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_shell(command: str) -> None:
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0


@pytest.mark.parametrize(
    ("media_type", "code"),
    [
        ("application/vnd.docker.distribution.manifest.v2+json", 0),
        ("application/vnd.oci.image.manifest.v1+json", 1),
        ("None", 1),
    ],
)
def test_only_dockers_media_types_pass(media_type: str, code: int) -> None:
    check = next(command for command in COMMANDS if command.startswith("case "))
    assert subprocess.run(["bash", "-c", check], env={"MEDIA_TYPE": media_type}, capture_output=True).returncode == code


def test_it_checks_and_tests_before_it_pushes_and_ends_with_the_digest() -> None:
    joined = "\n".join(COMMANDS)
    order = ["make check", "make test", "make smoke", "docker push", "IMAGE_URI=$REPOSITORY_URI@$DIGEST"]
    assert [joined.index(word) for word in order] == sorted(joined.index(word) for word in order)
    assert f"printf %.{COMMIT_LENGTH}s" in joined, "a deployment finds a commit's image by this tag"
