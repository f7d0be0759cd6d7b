"""Gets the image into ECR: pushes the local one with docker, or has CodeBuild build it; and marks what is deployed."""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from collections.abc import Mapping
from typing import Any

from account import Account, is_already_there
from deploy_error import DeployError, Invalid, TimedOut
from deploy_progress import DeployProgress
from deploy_settings import DOCKER, ImageSettings
from plan import CODEBUILD_RUN, DOCKER_PUSH, ImageSource

_BUILD_POLL_S = 10.0
_BUILD_LIMIT_S = 2 * 3600.0
_LINES_SHOWN = 3


def image_source(settings: ImageSettings) -> ImageSource:
    """How the settings' image gets into the repository."""
    if settings.source == DOCKER:
        local = {"image": settings.local, "repository": settings.repository, "tag": settings.tag}
        return ImageSource(DOCKER_PUSH, local, "the image on this machine; `make image` builds it")
    variables = {"ECR_REPOSITORY": settings.repository, "IMAGE_TAG": settings.tag}
    request: dict[str, Any] = {
        "projectName": settings.project,
        "environmentVariablesOverride": [
            {"name": name, "value": value, "type": "PLAINTEXT"} for name, value in variables.items()
        ],
        **({"sourceVersion": settings.revision} if settings.revision else {}),
    }
    return ImageSource(CODEBUILD_RUN, request, "check, test, build and push, as buildspec.yml says")


def local_image_id(settings: ImageSettings) -> str | None:
    """The id of the local image; None where there is none, or no docker."""
    try:
        found = _docker("image", "inspect", "--format", "{{.Id}}", settings.local)
    except Invalid:
        return None
    return found.strip() or None


def push(account: Account, request: Mapping[str, Any]) -> None:
    """Push a local image.

    Args:
        account: For the repository's address and the password.
        request: Of `image_source`.

    Raises:
        Invalid: where docker is missing or fails, with what it says.
    """
    repository = account.call("ecr", "describe_repositories", repositoryNames=[request["repository"]])["repositories"][0]
    grant = account.call("ecr", "get_authorization_token")["authorizationData"][0]
    user, _, password = base64.b64decode(grant["authorizationToken"]).decode().partition(":")
    uri = f"{repository['repositoryUri']}:{request['tag']}"
    _docker("login", "--username", user, "--password-stdin", repository["repositoryUri"].partition("/")[0], stdin=password)
    _docker("tag", request["image"], uri)
    _docker("push", uri)


def build(account: Account, progress: DeployProgress, request: Mapping[str, Any]) -> None:
    """Start a build and wait for it.

    Raises:
        Invalid: where it fails; the text says in which phase.
        TimedOut: where it takes longer than two hours.
    """
    # boto3 sends a request again whose answer it has not got: with the token CodeBuild starts one build all the same.
    token = uuid.uuid4().hex
    identity = account.call("codebuild", "start_build", **request, idempotencyToken=token)["build"]["id"]
    began = account.clock()
    while account.clock() - began < _BUILD_LIMIT_S:
        state = account.call("codebuild", "batch_get_builds", ids=[identity])["builds"][0]
        progress.state(f"{identity}: {state.get('currentPhase', state['buildStatus'])}")
        if state["buildStatus"] == "SUCCEEDED":
            return
        if state["buildStatus"] != "IN_PROGRESS":
            failed = [phase["phaseType"] for phase in state.get("phases", ()) if phase.get("phaseStatus") == "FAILED"]
            link = state.get("logs", {}).get("deepLink", "")
            raise Invalid(
                f"build {identity} ended {state['buildStatus']} in {', '.join(failed) or 'an unknown phase'}: {link}".rstrip(
                    ": "
                )
            )
        account.sleep(_BUILD_POLL_S)
    raise TimedOut(f"build {identity} has taken more than {_BUILD_LIMIT_S / 3600:.0f} hours: see CodeBuild")


def tag_image(account: Account, request: Mapping[str, Any]) -> None:
    """Give an image one more tag."""
    image = {"imageDigest": request["imageDigest"]}
    found = account.call("ecr", "batch_get_image", repositoryName=request["repositoryName"], imageIds=[image])["images"][0]
    try:
        account.call(
            "ecr",
            "put_image",
            repositoryName=request["repositoryName"],
            imageManifest=found["imageManifest"],
            imageTag=request["imageTag"],
            **({"imageManifestMediaType": found["imageManifestMediaType"]} if found.get("imageManifestMediaType") else {}),
        )
    except DeployError as error:
        if not is_already_there(error.__cause__):
            raise


def _docker(*arguments: str, stdin: str | None = None) -> str:
    command = os.environ.get("DOCKER", "docker")
    try:
        done = subprocess.run([*command.split(), *arguments], input=stdin, capture_output=True, text=True)
    except OSError as error:
        raise Invalid(f"{command}: {error.strerror}: install it, name another with DOCKER, or set image.source") from error
    if done.returncode != 0:
        last = " ".join(line.strip() for line in done.stderr.strip().splitlines()[-_LINES_SHOWN:])
        raise Invalid(f"{command} {arguments[0]} ended with {done.returncode}: {last}")
    return done.stdout
