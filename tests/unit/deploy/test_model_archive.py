from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from deploy_error import Invalid
from model_archive import lint, prepare_archive, read_archive, stages_of
from unit.deploy.deployments import settings


def files(*names: str) -> list[tarfile.TarInfo]:
    return [tarfile.TarInfo(name) for name in names]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("code/inference.py", "model.pt"), None),
        (("./code/inference.py", "./sub/model.safetensors"), None),
        (("model.pt",), None),
        (("net.onnx", "labels.txt"), None),
        (("a.pt", "b.pth"), "code/inference.py is missing, and without a model_fn the model folder must have model.pt"),
        (("weights/a.pt",), "code/inference.py is missing, and without a model_fn"),
        (("inference.py", "model.pt"), "inference.py lies at the root: it belongs into code/"),
        (("model/code/inference.py", "model/model.pt"), "one folder too deep: pack the contents of model/"),
        (("code/inference.py",), "no weights in it"),
        (("code/inference.py", "model.pt", "/etc/passwd"), "/etc/passwd leads out of the model folder"),
        (("code/inference.py", "model.pt", "../x"), "../x leads out of the model folder"),
        (("code/inference.py", "model.pt", "code/._inference.py"), "COPYFILE_DISABLE=1"),
    ],
)
def test_a_wrong_layout_is_found_before_the_upload(names: tuple[str, ...], expected: str | None) -> None:
    found = lint(files(*names))
    assert (found == ()) if expected is None else any(expected in line for line in found)


def test_links_and_devices_are_refused() -> None:
    link = tarfile.TarInfo("model.pt")
    link.type = tarfile.SYMTYPE
    assert "model.pt is neither a file nor a folder" in lint([*files("code/inference.py", "a.pt"), link])


def test_another_script_may_be_named() -> None:
    assert lint(files("code/serve.py", "model.pt"), "serve") == ()
    assert lint(files("code/inference.py", "model.pt"), "serve.py") == ("code/serve.py is missing",)


def test_stages_are_read_without_running_the_script() -> None:
    assert stages_of("import nothing\nSTAGES = 2\n") == 2
    assert stages_of("STAGES = two()\n") == 1
    assert stages_of("def broken(") == 1


@pytest.mark.parametrize("script", ["-" * 100_000, "a" + ".b" * 100_000])
def test_a_script_that_is_deep_is_one_of_which_nothing_can_be_said(script: str) -> None:
    assert stages_of(script) == 1


def test_an_archive_and_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "model.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in (("code/inference.py", b"STAGES = 3\n"), ("model.pt", bytes(1000))):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = read_archive(path)
    assert (archive.stages, archive.weights_bytes, len(archive.digest)) == (3, 1000, 64)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(Invalid, match=r"it is not a model\.tar\.gz"):
        read_archive(path)


def test_the_demos_model_is_packed_alike_each_time_and_may_be_deployed() -> None:
    deployment = settings(name="unit-test", model={"weights": ["demo/weights/*.safetensors"]})
    first = prepare_archive(deployment)
    assert prepare_archive(deployment) == first
    assert first.stages == 2
    first.path.unlink()
    with pytest.raises(Invalid, match=r"model\.archive='.*none\.tar\.gz': there is no such file"):
        prepare_archive(settings(model={"archive": "none.tar.gz"}))
    with pytest.raises(Invalid, match="no weights in it"):
        prepare_archive(settings(name="unit-test"))


def test_what_would_be_left_out_of_the_archive_without_a_word_is_refused(tmp_path: Path) -> None:
    for folder in ("code", "a", "b", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "code" / "inference.py").write_text("")
    for folder in ("a", "b"):
        (tmp_path / folder / "model.pt").write_bytes(folder.encode())
    code, weights = str(tmp_path / "code"), [str(tmp_path / "a" / "model.pt")]
    with pytest.raises(Invalid, match=r"model\.weights: model\.pt comes from two folders"):
        prepare_archive(
            settings(name="unit-test", model={"code": code, "weights": [*weights, str(tmp_path / "b" / "model.pt")]})
        )
    (tmp_path / "code" / "parts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Invalid, match="parts is a link to a folder, which is not packed: copy the folder"):
        prepare_archive(settings(name="unit-test", model={"code": code, "weights": weights}))


def test_another_content_has_another_file(tmp_path: Path) -> None:
    (tmp_path / "inference.py").write_text("STAGES = 1\n")
    (tmp_path / "model.pt").write_bytes(b"weights")
    deployment = settings(name="unit-test", model={"code": str(tmp_path), "weights": [str(tmp_path / "model.pt")]})
    first = prepare_archive(deployment)
    (tmp_path / "inference.py").write_text("STAGES = 2\n")
    second = prepare_archive(deployment)
    assert first.path != second.path
    assert [path.name for path in second.path.parent.glob("model-*")] == [f"model-{second.digest[:16]}.tar.gz"]
    second.path.unlink()
