"""The command line as a function, and what it is given: settings of a small deployment, an archive, an image."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

import create_endpoint
from container_image import DOCKER_MANIFEST

SETTINGS = """
name = "demo"
{top}
[model]
archive = "{archive}"
[image]
repository = "multigpu-inference"
source = "repository"
[instance]
type = "{instance_type}"
fallback = {fallback}
count = {count}
[environment]
{environment}
[smoke]
files = ["demo/photos/chick.jpg"]
accept = "image/png"
{more}
"""


@dataclass
class Outcome:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.out)
        return data


class Cli:
    """The command line, in this process: its exit code and what it printed."""

    def __init__(self, folder: Path, session: boto3.Session, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings = folder / "settings.toml"
        self.archive = folder / "model.tar.gz"
        self._session = session
        self._capsys = capsys
        # Nobody waits: sleeping makes this clock go.
        self._now = 0.0
        self.write()

    def write(
        self,
        *,
        instance_type: str = "ml.g6.12xlarge",
        fallback: tuple[str, ...] = (),
        count: int = 1,
        environment: str = "",
        top: str = "",
        more: str = "",
        weights: bytes = b"weights",
    ) -> None:
        """Write the settings, and an archive."""
        pack(self.archive, weights)
        text = SETTINGS.format(
            top=top,
            archive=self.archive,
            instance_type=instance_type,
            fallback=json.dumps(fallback),
            count=count,
            environment=environment,
            more=more,
        )
        self.settings.write_text(text)

    def _sleep(self, seconds: float) -> None:
        self._now += seconds

    def __call__(self, *arguments: str) -> Outcome:
        self._capsys.readouterr()
        code = create_endpoint.main(
            [*arguments, "--settings", str(self.settings)], self._session, self._sleep, lambda: self._now
        )
        captured = self._capsys.readouterr()
        return Outcome(code, captured.out, captured.err)


def pack(archive: Path, weights: bytes) -> None:
    """A model.tar.gz that may be deployed."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    source = archive.parent / "source"
    source.mkdir(exist_ok=True)
    (source / "inference.py").write_text("STAGES = 2\n")
    (source / "model.pt").write_bytes(weights)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / "inference.py", "code/inference.py")
        tar.add(source / "model.pt", "model.pt")


def put_image(client: Any, media_type: str = DOCKER_MANIFEST, config: bytes = b"config", tag: str = "latest") -> None:
    """An image in the repository, as a push leaves it."""
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 7, "digest": digest},
        "layers": [{"digest": digest}],  # moto makes an image's digest of those of its layers
    }
    client.put_image(
        repositoryName="multigpu-inference", imageManifest=json.dumps(manifest), imageManifestMediaType=media_type, imageTag=tag
    )
