from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from multigpu_inference.errors import SettingsError
from multigpu_inference.url_fetch.guard import UrlRefused, parse_url
from multigpu_inference.url_fetch.policy import UrlPolicy


def test_nothing_set() -> None:
    assert UrlPolicy.from_env({"MULTIGPU_URLS": " ", "MULTIGPU_URL_PORTS": ","}) == UrlPolicy(True, (), (80, 443), ())


def test_everything_set() -> None:
    environ = {
        "MULTIGPU_URLS": " Off",
        "MULTIGPU_URL_HOSTS": "Example.com, *.photos.example 10.0.0.1,[FD00::0:1]",
        "MULTIGPU_URL_PORTS": "8080,443",
        "MULTIGPU_URL_NETWORKS": "10.0.0.0/8,fd00::/8 192.168.1.1",
    }
    hosts = ("example.com", "*.photos.example", "10.0.0.1", "fd00::1")
    networks = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.168.1.1/32"))
    assert UrlPolicy.from_env(environ) == UrlPolicy(False, hosts, (8080, 443), networks)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MULTIGPU_URLS", "no", "on, off"),
        *(("MULTIGPU_URL_PORTS", text, "ports from 1 to 65535") for text in ("0", "65536", "80-90", "http", "080", "-1")),
        *(
            ("MULTIGPU_URL_HOSTS", text, "hosts such as example.com")
            for text in (",", "*", "*.", "*.10.0.0.1", "a..b", "http://a.b", "a.b:80")
        ),
        *(
            ("MULTIGPU_URL_HOSTS", text, "hosts such as example.com")
            for text in ("127.1", "a.*", "b\u00fccher.example", ".a.b", "a.b.")
        ),
        *(
            ("MULTIGPU_URL_NETWORKS", text, "networks such as 10.0.0.0/8")
            for text in ("10.0.0.1/8", "10", "10.0.0.0/33", "any", "fe80::1%1/64x")
        ),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as error:
        UrlPolicy.from_env({name: value})
    assert str(error.value).startswith(f"{name}={value!r}: allowed ")
    assert allowed in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "is_admitted"),
    [
        ("http://example.com/", True),
        ("http://EXAMPLE.com:443/", True),
        ("http://www.example.com/", False),
        ("http://a.photos.example/", True),
        ("http://b.a.photos.example/", True),
        ("http://photos.example/", False),
        ("http://notphotos.example/", False),
        ("http://example.com.evil.example/", False),
        ("http://93.184.215.14/", False),
        ("http://example.com:81/", False),
    ],
)
def test_the_list_of_hosts_is_the_first_line(url: str, is_admitted: bool) -> None:
    policy = UrlPolicy(hosts=("example.com", "*.photos.example"))
    if is_admitted:
        policy.admit(parse_url(url))
    else:
        with pytest.raises(UrlRefused) as refused:
            policy.admit(parse_url(url))
        assert refused.value.told.endswith("that this endpoint does not fetch from")


def test_without_urls_none_is_admitted() -> None:
    with pytest.raises(UrlRefused) as refused:
        UrlPolicy(enabled=False, hosts=("example.com",)).admit(parse_url("http://example.com/"))
    assert refused.value.told == "this endpoint fetches no URLs"


@pytest.mark.parametrize("address", ["1.1.1.1", "10.1.2.3", "127.0.0.1", "fd00::1"])
def test_what_the_operator_allows_is_dialled_beside_what_is_global(address: str) -> None:
    networks = tuple(ip_network(text) for text in ("10.0.0.0/8", "127.0.0.0/8", "fd00::/8"))
    UrlPolicy(networks=networks).admit_address(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fe80::1", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
        *("::ffff:169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1"),
    ],
)
def test_where_credentials_are_handed_out_nothing_is_dialled_whatever_is_allowed(address: str) -> None:
    with pytest.raises(UrlRefused):
        UrlPolicy(networks=(ip_network("0.0.0.0/0"), ip_network("::/0"))).admit_address(ip_address(address))
