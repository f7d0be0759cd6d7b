"""The image in ECR: which it is by digest, and what it is made of. Its layers are not read."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from account import Account
from deploy_error import DeployError, Invalid
from deploy_settings import CODEBUILD, COMMIT_LENGTH, ImageSettings

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_MEDIA_TYPES = [
    DOCKER_MANIFEST,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
]
# Put on the image by `make image`: the last word of the index that torch was taken from, such as cu126 or cpu.
_LABEL = "com.multigpu-inference.torch-build"
_CUDA_BUILD = re.compile(r"cu(\d{2})(\d)")


@dataclass(frozen=True, slots=True)
class ContainerImage:
    """An image in ECR.

    Attributes:
        uri: By digest.
        media_type: Of its manifest.
        architecture: Such as amd64; None: it could not be read.
        cuda: Of its torch, as far as the image tells: 12.4, cpu; None: it does not.
        config_digest: Of its configuration, which is the id that docker knows it by.
    """

    uri: str
    media_type: str
    architecture: str | None
    cuda: str | None
    config_digest: str = ""

    @property
    def ids(self) -> tuple[str, str]:
        """What docker may call it: by its configuration, or with containerd's store by its manifest."""
        return self.config_digest, self.uri.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class ImageReference:
    """Where an image lies: `registry/repository:tag` or `registry/repository@sha256:…`.

    Attributes:
        registry_id: The account that it lies in; empty: the caller's.
        repository: Its name.
        image_id: As ECR takes it: by tag or digest.
        base: The URI without tag and digest; empty where only ECR knows it.
    """

    registry_id: str
    repository: str
    image_id: tuple[str, str]
    base: str


def reference(settings: ImageSettings) -> ImageReference:
    """Where the settings' image lies.

    Raises:
        Invalid: where the URI is none of ECR's.
    """
    if not settings.uri:
        if settings.source == CODEBUILD and settings.revision:
            # buildspec.yml gives an image its commit's first characters as a tag.
            return ImageReference("", settings.repository, ("imageTag", settings.revision[:COMMIT_LENGTH]), "")
        return ImageReference("", settings.repository, ("imageTag", settings.tag), "")
    match = re.fullmatch(r"((\d{12})\.[^/]+/([^:@]+))(?:@(sha256:[0-9a-f]{64})|:([\w.-]+))", settings.uri)
    if match is None:
        raise Invalid(
            f"image.uri={settings.uri!r}: allowed is an image in ECR, with its tag or its digest (…/name:tag, …/name@sha256:…)"
        )
    base, registry_id, repository, digest, tag = match.groups()
    return ImageReference(registry_id, repository, ("imageDigest", digest) if digest else ("imageTag", tag), base)


def find_image(account: Account, where: ImageReference) -> ContainerImage | None:
    """Look an image up; None where there is none."""
    registry = {"registryId": where.registry_id} if where.registry_id else {}
    field, value = where.image_id
    found = account.find(
        "ecr",
        "batch_get_image",
        repositoryName=where.repository,
        imageIds=[{field: value}],
        acceptedMediaTypes=_MEDIA_TYPES,
        **registry,
    )
    if not found or not found["images"]:
        return None
    image = found["images"][0]
    digest = image["imageId"]["imageDigest"]
    base = where.base
    if not base:
        repositories = account.call("ecr", "describe_repositories", repositoryNames=[where.repository], **registry)
        base = repositories["repositories"][0]["repositoryUri"]
    manifest = json.loads(image["imageManifest"])
    media_type = image.get("imageManifestMediaType") or manifest.get("mediaType", "")
    config = _read_config(account, where, manifest, registry)
    config_digest = manifest.get("config", {}).get("digest", "")
    return ContainerImage(f"{base}@{digest}", media_type, config.get("architecture"), cuda_of(config), config_digest)


def cuda_of(config: dict[str, Any]) -> str | None:
    """The CUDA of an image's torch, by the label in the image's configuration.

    Returns:
        Such as 12.6; `cpu` for a CPU build; None where the image does not tell: it has pip's own build, or was made otherwise.
    """
    build = str((config.get("config", {}).get("Labels") or {}).get(_LABEL, ""))
    match = _CUDA_BUILD.fullmatch(build)
    return f"{match[1]}.{match[2]}" if match else ("cpu" if build == "cpu" else None)


def _read_config(account: Account, where: ImageReference, manifest: dict[str, Any], registry: dict[str, str]) -> dict[str, Any]:
    digest = manifest.get("config", {}).get("digest")
    if not digest:
        return {}
    try:
        answer = account.call(
            "ecr", "get_download_url_for_layer", repositoryName=where.repository, layerDigest=digest, **registry
        )
        with urllib.request.urlopen(answer["downloadUrl"], timeout=20) as body:
            config: dict[str, Any] = json.loads(body.read())
            return config
    except (DeployError, urllib.error.URLError, TimeoutError, ValueError):
        # What it would tell is then asked of the settings, and the preflight says so.
        return {}
