from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy_error import Invalid
from deploy_settings import ROOT, DeploySettings
from unit.deploy.deployments import settings


def test_the_example_that_ships_is_allowed_and_names_the_demos_model() -> None:
    example = DeploySettings.from_file(ROOT / "deploy" / "settings.toml")
    assert example.name == "multigpu-matting"
    assert example.instance.types == ("ml.g6.12xlarge", "ml.g5.12xlarge")
    assert [path.name for path in example.model.weights] == ["checkpoint.safetensors", "checkpoint_2.safetensors"]
    assert example.alarms is not None
    assert example.autoscaling is None


def test_what_is_commented_out_in_the_example_is_allowed_too(tmp_path: Path) -> None:
    lines = []
    for line in (ROOT / "deploy" / "settings.toml").read_text().splitlines():
        body = line.removeprefix("# ")
        setting = line.startswith("# ") and (body.startswith("[") or " = " in body.partition("#")[0])
        lines.append(body if setting else line)
    text = "\n".join(lines)
    # These three exclude others, or name files that are not there.
    for given in ('archive = "model.tar.gz"', 'uri = ""', 'revision = ""'):
        assert given in text
        text = text.replace(given, "")
    file = tmp_path / "settings.toml"
    file.write_text(text)
    whole = DeploySettings.from_file(file)
    assert whole.shadow is not None
    assert whole.asynchronous is not None
    assert whole.autoscaling is not None
    assert whole.network.subnets == ("subnet-0123",)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"name": ""}, "name='': allowed are 1 to 40 letters, digits and hyphens"),
        ({"name": "a_b"}, "name='a_b': allowed are"),
        ({"name": "x" * 41}, "allowed are 1 to 40"),
        ({"reads": ["photos/in"]}, "reads='photos/in': allowed are places such as s3://bucket/prefix/"),
        ({"instanze": {}}, "instanze is not a setting; did you mean instance?"),
        ({"instance": {"tpye": "x"}}, "instance.tpye is not a setting; did you mean type?"),
        ({"instance": {"count": 0}}, "instance.count=0: allowed is a whole number from 1 to 1000"),
        ({"instance": {"count": True}}, "instance.count=True: allowed is a whole number"),
        ({"instance": "ml.g5"}, "instance='ml.g5': allowed is a table"),
        ({"instance": {"fallback": "ml.g5"}}, "instance.fallback='ml.g5': allowed is a list of texts"),
        ({"routing": "random"}, "routing='random': allowed are LEAST_OUTSTANDING_REQUESTS, RANDOM"),
        ({"environment": {"A": 1}}, "environment.A=1: allowed is a text, in quotes"),
        ({"update": {"strategy": "canary", "percent": 60}}, "update.percent=60: allowed with canary is 1 to 50"),
        ({"update": {"strategy": "linear", "percent": 5}}, "update.percent=5: allowed with linear is 10 to 50"),
        ({"update": {"strategy": "rolling", "percent": 4}}, "update.percent=4: allowed with rolling is 5 to 50"),
        ({"network": {"subnets": ["a"]}}, "network: subnets and security_groups are given both or neither"),
        ({"image": {"source": "codebuild"}}, "image.project=''"),
        ({"image": {"uri": "a", "source": "docker"}}, "image.uri names an image that is there already"),
        ({"image": {"revision": "main"}}, "image.revision='main': allowed is a commit"),
        ({"transform": {"max_concurrent": 5, "max_payload_mb": 25}}, "it may be 100 at most"),
        ({"autoscaling": {"min": 2, "max": 4}}, "instance.count=1: allowed is autoscaling.min to autoscaling.max, 2 to 4"),
        ({"smoke": {"files": ["no/such/*.jpg"]}}, "smoke.files: there is no file no/such/*.jpg"),
        ({"alarms": {"p99_s": 61}}, "alarms.p99_s=61: allowed is a number from 0.001 to 60"),
    ],
)
def test_what_is_not_allowed_is_said_with_its_name_its_value_and_what_is(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as raised:
        settings(**tables)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_missing_or_no_toml_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="No such file or directory: name the settings with --settings FILE"):
        DeploySettings.from_file(tmp_path / "none.toml")
    file = tmp_path / "settings.toml"
    file.write_text("name = demo")
    with pytest.raises(Invalid, match="is not TOML"):
        DeploySettings.from_file(file)


def test_windows_line_ends_and_a_byte_order_mark_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "demo"\r\n[tags]\r\nteam = "imaging"\r\n')
    assert DeploySettings.from_file(path).tags == {"team": "imaging"}


@pytest.mark.parametrize("key", ["aws:x", "AWS:x", "multigpu-inference:deployment", "multigpu-inference:follows"])
def test_tags_that_are_not_the_users_are_refused(key: str) -> None:
    with pytest.raises(Invalid, match="is not the user's to set"):
        settings(tags={key: "x"})
