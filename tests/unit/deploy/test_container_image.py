from __future__ import annotations

from typing import Any

import pytest

from container_image import cuda_of, reference
from deploy_error import Invalid
from unit.deploy.deployments import DIGEST, settings


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"config": {"Labels": None}}, None),
        ({"config": {"Labels": {"com.multigpu-inference.torch-build": ""}}}, None),
        ({"config": {"Labels": {"com.multigpu-inference.torch-build": "cu126"}}}, "12.6"),
        ({"config": {"Labels": {"com.multigpu-inference.torch-build": "cu130"}}}, "13.0"),
        ({"config": {"Labels": {"com.multigpu-inference.torch-build": "cpu"}}}, "cpu"),
        ({"config": {"Labels": {"com.multigpu-inference.torch-build": "simple"}}}, None),
    ],
)
def test_the_cuda_that_an_image_tells_of(config: dict[str, Any], expected: str | None) -> None:
    assert cuda_of(config) == expected


def test_where_an_image_lies() -> None:
    by_tag = reference(settings(image={"uri": "123456789012.registry.test/team/name:v1.2"}).image)
    assert (by_tag.registry_id, by_tag.repository, by_tag.image_id) == ("123456789012", "team/name", ("imageTag", "v1.2"))
    by_digest = reference(settings(image={"uri": f"123456789012.registry.test/name@{DIGEST}"}).image)
    assert (by_digest.image_id, by_digest.base) == (("imageDigest", DIGEST), "123456789012.registry.test/name")
    assert reference(settings().image).image_id == ("imageTag", "latest")
    commit = settings(image={"source": "codebuild", "project": "p", "revision": "0123456789abcdef"}).image
    assert reference(commit).image_id == ("imageTag", "0123456789ab")


@pytest.mark.parametrize("uri", ["debian:12", "123456789012.registry.test/name", "123456789012.registry.test/name@sha256:1"])
def test_an_image_that_is_not_in_ecr_or_not_named_exactly_is_refused(uri: str) -> None:
    with pytest.raises(Invalid, match=r"image\.uri=.* allowed is an image in ECR, with its tag or its digest"):
        reference(settings(image={"uri": uri}).image)
