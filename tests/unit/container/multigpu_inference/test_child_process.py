from __future__ import annotations

import pytest

from multigpu_inference.child_process import Command
from multigpu_inference.unprivileged import User


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HOME", "/root")


def test_a_process_has_no_credentials_unless_it_is_to_have_them() -> None:
    assert "AWS_SECRET_ACCESS_KEY" not in Command("pool-0", "m").start_options()["env"]
    assert Command("fetch-0", "m", credentials=True).start_options()["env"]["AWS_SECRET_ACCESS_KEY"] == "secret"


def test_credentials_that_a_command_brings_along_are_withheld_too() -> None:
    command = Command("plan-pool", "m", (), {"AWS_SESSION_TOKEN": "secret", "OMP_NUM_THREADS": "1"})
    environ = command.start_options()["env"]
    assert "AWS_SESSION_TOKEN" not in environ
    assert environ["OMP_NUM_THREADS"] == "1"


def test_a_process_stays_its_parents_user() -> None:
    assert set(Command("pool-0", "m").start_options()) == {"env"}


def test_another_user_has_its_groups_and_its_home_but_the_commands_own_variables_count() -> None:
    user = User("multigpu", 10001, 10002, (10002, 44), {"HOME": "/run/home", "TMPDIR": "/run/tmp"})
    options = Command("engine", "m", (), {"TMPDIR": "/elsewhere"}, user=user).start_options()
    assert (options["user"], options["group"], options["extra_groups"]) == (10001, 10002, (10002, 44))
    assert (options["env"]["HOME"], options["env"]["TMPDIR"]) == ("/run/home", "/elsewhere")
