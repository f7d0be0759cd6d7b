from __future__ import annotations

from dataclasses import replace

import pytest

from matting.s3_location import S3Location
from matting.save import Save
from matting.settings import Settings
from multigpu_inference.errors import SettingsError
from multigpu_inference.url_fetch.policy import UrlPolicy

ONE_PLACE = "one s3://bucket or s3://bucket/prefix, the prefix of at most 700 bytes"
CAN_BE_MADE = (
    "what can be made; answers are made as "
    "image/png, image/png;cutout, image/png;trimap, image/webp, application/json or application/x-npy"
)


def test_nothing_set() -> None:
    assert Settings.from_env({"MULTIGPU_OUTPUT_S3": " ", "MULTIGPU_MAX_PHOTO_PIXELS": ""}) == Settings(50_000_000)


def test_everything_set() -> None:
    environ = {
        "MULTIGPU_MAX_PHOTO_PIXELS": "1000",
        "MULTIGPU_MATTING_MAX_PIXELS": "0",
        "MULTIGPU_MAX_BATCH_SIZE": "3",
        "MULTIGPU_OUTPUT_S3": "s3://results/mattes/",
        "MULTIGPU_INPUT_S3": "s3://photos s3://others/a",
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "application/json",
        "MULTIGPU_URLS": "off",
    }
    photos = (S3Location("photos"), S3Location("others", "a"))
    urls = UrlPolicy(enabled=False)
    assert Settings.from_env(environ) == Settings(1000, 0, 3, S3Location("results", "mattes"), photos, "application/json", urls)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MULTIGPU_MAX_PHOTO_PIXELS", "0", "a whole number from 1 to 1000000000"),
        ("MULTIGPU_MAX_PHOTO_PIXELS", "50 MP", "a whole number from 1 to 1000000000"),
        ("MULTIGPU_MAX_PHOTO_PIXELS", "1000000001", "a whole number from 1 to 1000000000"),
        ("MULTIGPU_MATTING_MAX_PIXELS", "-1", "a whole number from 0 to 1000000000"),
        ("MULTIGPU_MAX_BATCH_SIZE", "0", "a whole number from 1 to 1000000000"),
        ("MULTIGPU_OUTPUT_S3", "results", ONE_PLACE),
        ("MULTIGPU_OUTPUT_S3", "s3://results/a s3://results/b", ONE_PLACE),
        ("MULTIGPU_OUTPUT_S3", "s3://results/../a", ONE_PLACE),
        ("MULTIGPU_OUTPUT_S3", "s3://results/" + "ü" * 350 + "a", ONE_PLACE),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv", CAN_BE_MADE),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png;q=0", CAN_BE_MADE),
        ("MULTIGPU_INPUT_S3", "s3://photos,s3://others", "s3://bucket or s3://bucket/prefix, several with spaces between"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_env({name: value})
    assert str(error.value) == f"{name}={value!r}: allowed is {allowed}"


def test_the_longest_name_fits_below_the_longest_prefix() -> None:
    place = Settings.from_env({"MULTIGPU_OUTPUT_S3": "s3://results/" + "a" * 700}).output_s3
    location = replace(Save.of_name("b" * 200).with_accept("image/webp"), place=place).location
    assert S3Location.parse(str(location)) == location


@pytest.mark.parametrize(
    ("header", "accept"), [(None, "image/webp"), ("", "image/webp"), (" */* ", "image/webp"), ("image/*", "image/*")]
)
def test_the_default_is_for_those_who_accept_anything(header: str | None, accept: str) -> None:
    assert Settings(default_accept="image/webp").accept_of(header) == accept
