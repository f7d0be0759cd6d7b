"""Every URL of `hostile_urls` against the guard, its names and servers in memory."""

from __future__ import annotations

from itertools import groupby

import pytest

from hostile_urls import GLOBAL, GOOD_URLS, MAY_BE_FETCHED, hostile
from multigpu_inference.errors import BadRequest, PayloadTooLarge
from multigpu_inference.url_fetch.fetch_url import fetch_url
from multigpu_inference.url_fetch.policy import UrlPolicy
from unit.container.multigpu_inference.url_fetch.strange_network import PHOTO, StrangeNetwork

FAMILIES = {family: [url for _, url in urls] for family, urls in groupby(hostile(), lambda each: each[0])}
# All that a client may be told, but for the number of a status.
TOLD = (
    "'url' must begin with http:// or https://",
    "'url' must be an address such as https://example.com/a.jpg, without user, blanks or backslashes",
    "'url' names a port that this endpoint does not fetch from",
    "'url' redirects more than 3 times",
    "what 'url' points to could not be fetched",
    "what 'url' points to is larger than 0.2 MB",
    "the server behind 'url' answered with status ",
)


def test_there_are_more_than_were_measured_of_others() -> None:
    assert len({url for urls in FAMILIES.values() for url in urls}) >= 290


@pytest.mark.parametrize("family", FAMILIES)
def test_none_is_fetched_and_no_forbidden_address_is_dialled(strange: StrangeNetwork, family: str) -> None:
    fetched, odd = [], []
    for url in FAMILIES[family]:
        try:
            fetch_url(url, max_bytes=200_000, policy=UrlPolicy(), network=strange.network)
            fetched.append(url)
        except (BadRequest, PayloadTooLarge) as error:
            # A cause for the log, without which nobody could tell why.
            if not error.message.startswith(TOLD) or (error.__cause__ is None and not isinstance(error, PayloadTooLarge)):
                odd.append((url, error.message))
    assert set(fetched) <= MAY_BE_FETCHED
    assert odd == []
    assert [each for each in strange.dialled if each[0] not in GLOBAL or each[1] not in (80, 443)] == []


@pytest.mark.parametrize("url", GOOD_URLS)
def test_good_ones_are_fetched(strange: StrangeNetwork, url: str) -> None:
    assert fetch_url(url, policy=UrlPolicy(), network=strange.network) == PHOTO
