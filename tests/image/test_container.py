"""`docker run IMAGE serve` as SageMaker does it: the model read-only at /opt/ml/model, a port, SIGTERM."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from answer import post_photo
from demo_model import PHOTOS
from image.docker_cli import Container

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

# What SageMaker grants between SIGTERM and SIGKILL.
STOP_LIMIT_S = 30.0


def photos() -> list[Path]:
    return sorted(path for path in PHOTOS.iterdir() if not path.name.startswith("."))


def test_ping_answers(serving: Container) -> None:
    assert serving.ping() == 200


@pytest.mark.parametrize("photo", photos(), ids=lambda path: path.name)
def test_a_photo_is_answered_with_a_matte_of_its_size(serving: Container, photo: Path) -> None:
    with requests.Session() as session:
        answer = post_photo(session, serving.url, photo, "matte", "image/png")
    assert answer.body.startswith(b"\x89PNG")


def test_replicas_take_turns(serving: Container) -> None:
    with requests.Session() as session:
        answers = [post_photo(session, serving.url, photos()[0], "matte", "image/png") for _ in range(4)]
    replicas = [answer.attributes["replica"] for answer in answers]
    assert replicas in (["0", "1", "0", "1"], ["1", "0", "1", "0"])


def test_the_model_folder_is_read_only(serving: Container) -> None:
    done = serving.docker.run("exec", serving.name, "touch", "/opt/ml/model/written", check=False)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_an_ordinary_user_serves_and_sigterm_ends_it_cleanly(
    start: Callable[..., Container], model_dir: Path, kind: str
) -> None:
    container = start("-e", f"MULTIGPU_FRONT_END={kind}", "-u", "1000:1000", "-v", f"{model_dir}:/opt/ml/model:ro")
    container.wait_until_ready()
    with requests.Session() as session:
        post_photo(session, container.url, photos()[0], "matte", "image/png")
    started = time.monotonic()
    container.stop()
    assert time.monotonic() - started < STOP_LIMIT_S
    assert container.exit_code() == 0


def test_all_but_the_first_process_are_an_ordinary_user(serving: Container) -> None:
    uids = "for each in /proc/[0-9]*; do tr '\\0' ' ' <$each/cmdline; sed -n 's/^Uid:/ uid/p' $each/status; done"
    lines = serving.docker.run("exec", serving.name, "sh", "-c", uids).stdout.splitlines()
    own = [line for line in lines if "multigpu_inference" in line or "java " in line or "model_service_worker" in line]
    assert len(own) > 5
    assert {line.split()[-1] for line in own} == {"10001"}
    assert [line.split()[-1] for line in lines if "-m entrypoint serve" in line] == ["0"]
    assert '"event": "runs_as", "user": "multigpu"' in serving.output()


def test_sigterm_while_models_load_ends_it_cleanly(start: Callable[..., Container], model_dir: Path) -> None:
    container = start("-v", f"{model_dir}:/opt/ml/model:ro")
    # Printed by the engine before it starts the workers.
    container.wait_until(lambda: '"event": "plan"' in container.output(), 60, "the engine's plan")
    container.stop()
    assert container.exit_code() == 0


def test_without_a_model_it_ends_with_a_line_that_says_so(start: Callable[..., Container]) -> None:
    container = start()
    container.wait_until(lambda: not container.running(), 60, "ended")
    assert container.exit_code() not in (0, 137)
    # Every line is an event, so no trace of Java or Python stands loose; the last one is the reason.
    *_, last = (json.loads(line) for line in container.output().splitlines())
    assert (last["source"], last["event"]) == ("supervisor", "start_failed")
    assert "/opt/ml/model/code/inference.py" in last["message"]
