from __future__ import annotations

from pathlib import Path

import pytest

from multigpu_inference.errors import SettingsError
from multigpu_inference.planner.model_folder import model_folder


def test_a_folder_with_a_script_stands_where_the_container_looks(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text("# a script")
    with model_folder(tmp_path, {"MULTIGPU_NUM_REPLICAS": "3"}) as (own, settings):
        assert settings.model.script.read_text() == "# a script"
        assert settings.engine.num_replicas == 3
        base_dir = Path(own["SAGEMAKER_BASE_DIR"])
        assert settings.model.base_dir == base_dir
    assert not base_dir.exists()
    assert (tmp_path / "code" / "inference.py").exists()


def test_what_is_no_such_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.touch()
    for path, text in (
        (archive, "is a file: unpack"),
        (tmp_path / "no", "no such folder"),
        (tmp_path, "has no code/inference.py"),
    ):
        with pytest.raises(SettingsError, match=text), model_folder(path, {}):
            pass


def test_a_setting_that_is_not_allowed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MULTIGPU_DEVICES='x'"), model_folder(tmp_path, {"MULTIGPU_DEVICES": "x"}):
        pass
