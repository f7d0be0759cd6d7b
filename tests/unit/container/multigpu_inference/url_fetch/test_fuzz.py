"""Anything at all as a URL, and URLs that are changed a little: refused in one way, and nothing inside is ever dialled."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_urls import GLOBAL, GOOD_URLS, INSIDE, hostile
from multigpu_inference.errors import BadRequest, PayloadTooLarge
from multigpu_inference.url_fetch.fetch_url import fetch_url
from multigpu_inference.url_fetch.guard import UrlRefused, is_global, is_never_dialled, parse_url
from multigpu_inference.url_fetch.policy import UrlPolicy
from unit.container.multigpu_inference.url_fetch.strange_network import StrangeNetwork

_URLS = [url for _, url in hostile() if len(url) < 200] + list(GOOD_URLS)
# What parsers read differently, and what hides it.
_PIECES = [
    *"/\\@#?:%[]. \t\n\r\0&;,-_~0x",
    "//",
    "@169.254.169.254",
    "127.0.0.1",
    "[::1]",
    "%2e",
    "%00",
    "%0d%0a",
    "\u3002",
    "\uff0e",
]
_PIECES += [
    "http:",
    "https://",
    "xn--",
    "0x7f",
    "::ffff:",
    "%25lo",
    "\u00ad",
    "\u202e",
    "\ud800",
    "a" * 64,
    "good.example",
    ":80",
    ":22",
]


@st.composite
def _changed(draw: Any) -> str:
    """A URL with pieces put in, put in the place of others, or taken out."""
    text: str = draw(st.sampled_from(_URLS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(_PIECES) | st.text(max_size=3))
        text = text[:at] + piece + text[at + draw(st.integers(0, 3)) :]
    return text


_fuzzed = settings(derandomize=True, deadline=None, database=None, max_examples=400)


@_fuzzed
@given(st.text() | _changed())
def test_a_url_is_taken_apart_or_refused(text: str) -> None:
    try:
        url = parse_url(text)
    except UrlRefused:
        return
    # What is left of it cannot be read in two ways.
    assert url.host == url.host.lower()
    assert set(url.host) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.:")
    assert all("!" <= character <= "~" for character in url.target)
    assert url.target.startswith("/")
    assert 1 <= url.port <= 65_535
    assert parse_url(f"{url.scheme}://{url.authority}{url.target.replace('#', '')}") == url


@_fuzzed
@given(st.text() | _changed())
def test_whatever_is_fetched_nothing_inside_is_dialled(text: str) -> None:
    strange, told = StrangeNetwork(), ""
    try:
        fetch_url(text, max_bytes=20_000, timeout_s=2, policy=UrlPolicy(), network=strange.network)
    except (BadRequest, PayloadTooLarge) as error:
        told = error.message
    finally:
        strange.world.stopped.set()
    assert {each for each in strange.dialled if each[0] not in GLOBAL or each[1] not in (80, 443)} == set()
    assert len(told) < 200
    assert told.isascii()


@_fuzzed
@given(st.text(st.characters(codec="latin-1")) | _changed())
def test_wherever_a_redirect_leads_it_is_checked(location: str) -> None:
    try:
        url = parse_url("http://good.example/a/b").redirected(location)
    except UrlRefused:
        return
    assert parse_url(f"{url.scheme}://{url.authority}{url.target}") == url


@settings(_fuzzed, max_examples=1000)
@given(st.ip_addresses() | st.sampled_from(INSIDE).map(ip_address))
def test_no_address_is_global_that_python_takes_for_private(address: Any) -> None:
    if is_global(address) and not is_never_dialled(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
