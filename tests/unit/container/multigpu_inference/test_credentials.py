from __future__ import annotations

import subprocess
import sys

import pytest

from multigpu_inference.credentials import hint, withheld
from multigpu_inference.errors import ModelError

SECRETS = dict.fromkeys(
    (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_SECURITY_TOKEN",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_CONFIG_FILE",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AWS_SOMETHING_NEW",
        "BOTO_CONFIG",
    ),
    "secret",
)
HARMLESS = {
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ENDPOINT_URL_S3": "http://localhost",
    "AWS_CA_BUNDLE": "/ca.pem",
    "PATH": "/bin",
    "MULTIGPU_DEVICES": "cpu",
}


class NoCredentialsError(Exception):
    """As botocore's."""


def test_what_leads_to_credentials_goes_and_the_rest_stays() -> None:
    left = withheld(SECRETS | HARMLESS)
    assert "secret" not in left.values()
    assert left.items() >= HARMLESS.items()


def test_neither_the_homes_files_nor_the_instances_role_are_asked() -> None:
    left = withheld({})
    assert left["AWS_SHARED_CREDENTIALS_FILE"] == left["AWS_CONFIG_FILE"] == "/dev/null"
    assert left["AWS_EC2_METADATA_DISABLED"] == "true"


def test_nothing_is_withheld_where_all_are_to_have_them() -> None:
    environ = SECRETS | HARMLESS | {"MULTIGPU_AWS_CREDENTIALS": "1"}
    assert withheld(environ) == environ


def test_boto3_finds_nothing_in_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3")
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    for name, value in withheld({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}).items():
        monkeypatch.setenv(name, value)
    assert boto3.session.Session().get_credentials() is None


def wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("cannot load") from cause
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("error", [NoCredentialsError("none"), wrapped(NoCredentialsError("none"))])
def test_an_error_for_want_of_credentials_names_the_setting(error: Exception) -> None:
    assert "MULTIGPU_AWS_CREDENTIALS=1" in hint(error, {})
    assert hint(error, {"MULTIGPU_AWS_CREDENTIALS": "1"}) == ""


def test_other_errors_are_left_alone() -> None:
    loop = ValueError("its own cause")
    loop.__cause__ = loop
    assert [hint(error, {}) for error in (ValueError("x"), wrapped(ValueError("x")), loop)] == ["", "", ""]


def test_a_failed_start_does_not_say_it_twice() -> None:
    failed = ModelError("model_fn failed: NoCredentialsError")
    failed.__cause__ = NoCredentialsError("none")
    assert hint(failed, {}) == ""


def dumpable_after(guarded: dict[str, str]) -> str:
    script = (
        "import ctypes, sys\nfrom multigpu_inference.credentials import guard\n"
        f"guard({guarded!r})\nprint(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"  # PR_GET_DUMPABLE
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_a_process_with_credentials_does_not_let_itself_be_read() -> None:
    assert dumpable_after({"AWS_SECRET_ACCESS_KEY": "secret"}) == "0"


def test_one_without_is_as_any_other() -> None:
    assert dumpable_after(withheld(SECRETS) | HARMLESS) == "1"
