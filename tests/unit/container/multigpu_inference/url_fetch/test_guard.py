from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from hostile_urls import INSIDE
from multigpu_inference.url_fetch.guard import UrlRefused, is_global, is_never_dialled, parse_url, read_address, read_host


@pytest.mark.parametrize(
    ("text", "scheme", "host", "port", "target", "authority"),
    [
        ("http://example.com", "http", "example.com", 80, "/", "example.com"),
        ("HTTPS://Example.COM/A", "https", "example.com", 443, "/A", "example.com"),
        ("http://example.com:8080/a?b#c", "http", "example.com", 8080, "/a?b", "example.com:8080"),
        ("http://example.com:443/", "http", "example.com", 443, "/", "example.com:443"),
        ("http://example.com?b=http://x/@y", "http", "example.com", 80, "/?b=http://x/@y", "example.com"),
        ("https://93.184.215.14/", "https", "93.184.215.14", 443, "/", "93.184.215.14"),
        ("http://[2606:2800::0:1]:81/", "http", "2606:2800::1", 81, "/", "[2606:2800::1]:81"),
        ("http://xn--bcher-kva.example/", "http", "xn--bcher-kva.example", 80, "/", "xn--bcher-kva.example"),
        ("http://1a.2b-c.example/%20?%zz", "http", "1a.2b-c.example", 80, "/%20?%zz", "1a.2b-c.example"),
        ("http://example.com/b\u00e4r?\u20ac", "http", "example.com", 80, "/b%C3%A4r?%E2%82%AC", "example.com"),
        ("http://example.com#@169.254.169.254/", "http", "example.com", 80, "/", "example.com"),
        ("http://example.com/..//.", "http", "example.com", 80, "/..//.", "example.com"),
    ],
)
def test_takes_a_url_apart(text: str, scheme: str, host: str, port: int, target: str, authority: str) -> None:
    url = parse_url(text)
    assert (url.scheme, url.host, url.port, url.target, url.authority) == (scheme, host, port, target, authority)
    assert (url.address is None) == any(character.isalpha() and ":" not in host for character in host)


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("http://other.example/x", "http://other.example:80/x"),
        ("https:other.example", None),
        ("//other.example/x", "http://other.example:80/x"),
        ("/x", "http://example.com:81/x"),
        ("x", "http://example.com:81/a/x"),
        ("../x", "http://example.com:81/a/../x"),
        ("?x", "http://example.com:81/a/b?x"),
        ("#x", "http://example.com:81/a/"),
        ("x:y", None),
        ("///x", None),
        ("\\x", None),
        ("file:///etc/passwd", None),
    ],
)
def test_follows_a_redirect(location: str, leads_to: str | None) -> None:
    url = parse_url("http://example.com:81/a/b?c")
    if leads_to is None:
        with pytest.raises(UrlRefused):
            url.redirected(location)
    else:
        found = url.redirected(location)
        assert f"{found.scheme}://{found.host}:{found.port}{found.target}" == leads_to


def test_no_redirect_leaves_https() -> None:
    url = parse_url("https://example.com/")
    assert url.redirected("https://other.example/").host == "other.example"
    with pytest.raises(UrlRefused, match="from https to http"):
        url.redirected("http://example.com/")


@pytest.mark.parametrize(
    "text", ["127.1", "0x7f.1", "2130706433", "017700000001", "0x7f000001", "127.0.0.01", "1.2.3.4.5", "0x"]
)
def test_no_host_is_left_that_the_system_takes_for_a_number(text: str) -> None:
    with pytest.raises(UrlRefused):
        read_host(text)


def test_what_becomes_ascii_when_it_is_made_lower_is_no_name() -> None:
    with pytest.raises(UrlRefused):
        read_host("example.\u212aom")


@pytest.mark.parametrize("text", ["a.1b", "a.x0", "1.a", "0x7f.com", "127.0.0.1.nip.example"])
def test_what_is_left_is_no_number_to_the_system(text: str) -> None:
    assert read_host(text) == (text, None)
    with pytest.raises(OSError, match="illegal IP address"):
        socket.inet_aton(text)


def test_what_is_inside_is_not_global() -> None:
    assert [address for address in INSIDE if is_global(ip_address(address)) and not is_never_dialled(ip_address(address))] == []


@pytest.mark.parametrize(
    "address",
    [
        *(
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
        ),
        *("169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255"),
        *("198.20.0.0", "223.255.255.255", "2000::1", "2001:200::1", "2003::1", "2606:4700::1", "2a00::1", "3ffe::1"),
    ],
)
def test_what_is_beside_is_global(address: str) -> None:
    assert is_global(ip_address(address))
    assert not is_never_dialled(ip_address(address))


@pytest.mark.parametrize("value", [None, 5, ["http://example.com/"], {"url": 1}, b"http://example.com/"])
def test_what_json_has_beside_texts_is_no_url(value: Any) -> None:
    with pytest.raises(UrlRefused, match="no text"):
        parse_url(value)


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%1", "2606::1%lo", "", "x", "1.2.3"])
def test_no_scope_and_no_name_is_an_address(text: str) -> None:
    with pytest.raises(UrlRefused):
        read_address(text)
