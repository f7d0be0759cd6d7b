from __future__ import annotations

from pathlib import Path

import pytest

from multigpu_inference.errors import SettingsError
from multigpu_inference.messages import ScriptInfo
from multigpu_inference.planner.sample import choose_sample

WITH_SAMPLE = ScriptInfo(sample=(b"abc", "image/png"), default_accept="image/webp")


def test_the_scripts_own_sample_is_taken_where_nothing_else_is_given() -> None:
    sample = choose_sample(WITH_SAMPLE, None, None, None)
    assert (sample.body, sample.content_type, sample.accept, sample.source) == (
        b"abc",
        "image/png",
        "image/webp",
        "sample_input()",
    )


def test_a_file_comes_before_the_scripts_sample(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"xyz")
    sample = choose_sample(WITH_SAMPLE, tmp_path / "body", "text/plain", "text/html")
    assert (sample.body, sample.content_type, sample.accept) == (b"xyz", "text/plain", "text/html")


def test_without_a_word_on_it_the_stock_type_is_asked_for() -> None:
    assert choose_sample(ScriptInfo(sample=(b"", "a/b")), None, None, None).accept == "application/json"


def test_no_request_at_all_is_one_line_with_exit_code_2() -> None:
    with pytest.raises(SettingsError, match="the script has no sample_input\\(\\): say --body FILE") as caught:
        choose_sample(ScriptInfo(), None, None, None)
    assert caught.value.exit_code == 2


def test_a_body_needs_its_type_and_a_file_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="needs its --content-type"):
        choose_sample(WITH_SAMPLE, tmp_path / "body", None, None)
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        choose_sample(WITH_SAMPLE, tmp_path / "body", "a/b", None)


def test_a_request_whose_input_comes_from_elsewhere_is_refused() -> None:
    script = ScriptInfo(functions=frozenset({"fetch_fn"}), fetch_types=frozenset({"a/json"}), sample=(b"", "A/JSON; x=y"))
    with pytest.raises(SettingsError, match=r"type A/JSON; x=y goes through fetch_fn.*--body FILE"):
        choose_sample(script, None, None, None)
    assert choose_sample(script, None, "a/b", None).content_type == "a/b"
