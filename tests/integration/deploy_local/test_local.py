"""`create_endpoint.py --local` as it is started, and an application's unchanged boto3 before it.

Docker is a stand-in that knows no image, or one that runs the entry point in its place: the command line is the real one.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from PIL import Image

from integration.endpoint import ROOT, SERVICES
from support import free_port, wait_until

pytestmark = pytest.mark.deploy

START_LIMIT_S = 55.0
NO_DOCKER = "no-such-docker"
# Takes the arguments of `docker run` as docker does, and runs the entry point on the mounted model.
DOCKER = f"""
import os, sys
words = sys.argv[1:]
if words[:2] == ["image", "inspect"]:
    sys.exit(0 if words[-1] == "stand-in:local" else 1)
assert words[0] == "run" and words[-2:] == ["stand-in:local", "serve"], words
mount = words[words.index("-v") + 1]
assert mount.endswith("/model:/opt/ml/model:ro"), mount
passed = {{words[i + 1] for i, word in enumerate(words) if word == "-e"}}
kept = {{"PATH", "HOME", "TMPDIR", "JAVA_HOME"}}
environment = {{name: value for name, value in os.environ.items() if name in passed | kept}}
environment["SAGEMAKER_BASE_DIR"] = mount.partition(":")[0].removesuffix("/model")
os.execve({sys.executable!r}, [{sys.executable!r}, {str(ROOT / "container" / "entrypoint.py")!r}, "serve"], environment)
"""


class Local:
    """One `create_endpoint.py --local` with settings of its own."""

    def __init__(self, folder: Path, settings: str, docker: str = NO_DOCKER) -> None:
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self.port = free_port()
        (folder / "settings.toml").write_text(f'name = "{self.name}"\n{settings}')
        self.environment = {
            **os.environ,
            "DOCKER": docker,
            "MULTIGPU_LOCAL_PORT": str(self.port),
            "MULTIGPU_FRONT_END": "http",
            "MULTIGPU_PREPROCESS_WORKERS": "2",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self._out = folder / "out"
        with self._out.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "deploy/create_endpoint.py", "--local", "--settings", str(folder / "settings.toml")],
                cwd=ROOT,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def build(self) -> Path:
        return ROOT / "build" / "deploy" / self.name

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    def wait_until_it_serves(self) -> None:
        def serves() -> bool:
            assert self.process.poll() is None, self.out
            return "Ctrl-C stops it all" in self.out

        wait_until(serves, START_LIMIT_S)

    def runtime(self) -> Any:
        session = boto3.Session(aws_access_key_id="local", aws_secret_access_key="local", region_name="us-east-1")
        return session.client("sagemaker-runtime", endpoint_url=f"http://127.0.0.1:{self.port}")

    def ended(self) -> int:
        return self.process.wait(40)

    def clean_up(self) -> None:
        for child in psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []:
            child.kill()
        self.process.kill()
        self.process.wait()
        for folder, _, _ in os.walk(self.build):
            os.chmod(folder, 0o755)
        shutil.rmtree(self.build, ignore_errors=True)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Local]]:
    started: list[Local] = []

    def begin(settings: str, docker: str = NO_DOCKER) -> Local:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Local(folder, settings, docker))
        return started[-1]

    yield begin
    for local in started:
        local.clean_up()


def script(folder: Path, source: str) -> str:
    """Settings of a model that is one script."""
    (folder / "code").mkdir()
    (folder / "code" / "inference.py").write_text(source)
    (folder / "weights.pt").write_bytes(b"weights")
    (folder / "ask.json").write_text("{}")
    return (
        f'[model]\ncode = "{folder}/code"\nweights = ["{folder}/weights.pt"]\n'
        f'[smoke]\nfiles = ["{folder}/ask.json"]\n[image]\nlocal = "stand-in:local"\nsource = "docker"\n'
    )


def test_the_demos_settings_answer_invoke_endpoint_with_a_matte(start: Callable[..., Local], tmp_path: Path) -> None:
    """What the shipped settings deploy, but for the name; then the example's client, unchanged; then Ctrl-C."""
    shipped = (ROOT / "deploy" / "settings.toml").read_text().replace('name = "multigpu-matting"', "", 1)
    local = start(shipped)
    local.wait_until_it_serves()
    assert f"export AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=http://127.0.0.1:{local.port}\n" in local.out
    assert "answered, by replicas 0" in local.out

    photo = ROOT / "demo" / "photos" / "chick.jpg"
    answer = local.runtime().invoke_endpoint(
        EndpointName=local.name, ContentType="image/jpeg", Accept="image/png", Body=photo.read_bytes()
    )
    with Image.open(io.BytesIO(answer["Body"].read())) as matte, Image.open(photo) as picture:
        assert (matte.mode, matte.size) == ("L", picture.size)
        low, high = matte.getextrema()
        assert (low, high) == (0, 255)  # something is cut out, and something is not
    assert "replica=0" in answer["CustomAttributes"]

    exported = {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": f"http://127.0.0.1:{local.port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    for file, code in ((photo, 0), (ROOT / "README.md", 1)):
        output = tmp_path / f"{file.stem}.png"
        done = subprocess.run(
            [sys.executable, "examples/client.py", "--endpoint", local.name, str(file), str(output)],
            cwd=ROOT,
            env={**os.environ, **exported},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, len(done.stderr.splitlines()), output.exists()) == (code, 1, code == 0), done.stderr
    assert done.stderr.startswith("client: the request is not one it takes (415): ")
    with Image.open(tmp_path / "chick.png") as matte:
        assert matte.mode == "L"

    local.process.send_signal(signal.SIGINT)
    assert local.ended() == 0, local.out
    assert local.out.rstrip().endswith("stopped")


def test_the_image_serves_where_docker_has_it_and_sigterm_stops_it(start: Callable[..., Local], tmp_path: Path) -> None:
    (tmp_path / "docker.py").write_text(DOCKER)
    settings = script(tmp_path, (SERVICES / "commands.py").read_text())
    environment = '[environment]\nMULTIGPU_NUM_REPLICAS = "2"\nMULTIGPU_PREPROCESS = "pool"\n'
    local = start(settings + environment, docker=f"{sys.executable} {tmp_path}/docker.py")
    local.wait_until_it_serves()
    assert "image, with docker" in local.out
    assert "answered, by replicas 0, 1" in local.out
    seen = json.loads(
        local.runtime().invoke_endpoint(EndpointName=local.name, ContentType="application/json", Body="{}")["Body"].read()
    )
    assert seen["predict_fn"]["num_replicas"] == 2
    assert seen["predict_fn"]["replica"] in (0, 1)
    local.process.terminate()
    assert local.ended() == 0, local.out


@pytest.mark.parametrize(
    ("source", "more", "code", "words"),
    [
        ("x = 1\n", '[environment]\nMULTIGPU_DEVICES = "tpu"\n', 2, "MULTIGPU_DEVICES='tpu'"),
        (
            "def transform_fn(model, body, kind, accept):\n    raise ValueError\n\ndef model_fn(d):\n    return 1\n",
            "",
            7,
            "500",
        ),
    ],
    ids=["setting", "smoke"],
)
def test_what_fails_is_one_line_and_has_its_exit_code(
    start: Callable[..., Local], tmp_path: Path, source: str, more: str, code: int, words: str
) -> None:
    local = start(script(tmp_path, source) + more)
    assert local.ended() == code, local.out
    last = local.out.rstrip().splitlines()[-1]
    assert last.startswith("create_endpoint: ")
    assert words in last
    assert "Traceback" not in local.out
    assert str(local.build / "local" / "container.log") in last
