from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from multigpu_inference.errors import ModelError
from multigpu_inference.runtimes.load_network import load_network


def package(path: Path, **metadata: str) -> Path:
    """A package of AOTInductor as far as its head goes; of its code there is none."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data/aotinductor/model/c.wrapper_metadata.json", json.dumps(metadata))
    return path


@pytest.mark.parametrize(("made_for", "device"), [("cpu", "cuda:0"), ("cpu", "cuda"), ("cuda", "cpu")])
def test_a_package_for_another_kind_of_device_is_refused_before_it_is_loaded(
    tmp_path: Path, made_for: str, device: str
) -> None:
    path = package(tmp_path / "net.pt2", AOTI_DEVICE_KEY=made_for)
    with pytest.raises(ModelError, match=rf"^net\.pt2 is code for {made_for}, and is to run on {device}: "):
        load_network(path, device)


def test_one_for_this_kind_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^net\.pt2 is no AOTInductor package for cpu"):
        load_network(package(tmp_path / "net.pt2", AOTI_DEVICE_KEY="cpu"), "cpu")
