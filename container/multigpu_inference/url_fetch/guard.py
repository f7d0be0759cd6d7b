"""What a stranger's URL may be and which addresses are dialled for it: all rules, with their reasons. Pure.

    text ──► parse_url ──► Url ──► UrlPolicy.admit ──► look-up ──► every address: UrlPolicy.admit_address ──► dial that one
                            ▲                                                                                     │
                            └───────────────── redirected, at most three times ◄──────────────────────────────────┘

A URL is taken apart here, once, and its parts are used from then on, never its text: where two libraries read the same text,
a stranger writes one that they read differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import quote

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network

# All that a client is told. A refused address, a name that is not there, a closed port and a broken answer are one text, and
# a refused address is refused before anything is sent to it: whoever asks learns nothing of what is there.
NOT_FETCHED = "what 'url' points to could not be fetched"
BAD_SCHEME = "'url' must begin with http:// or https://"
BAD_URL = "'url' must be an address such as https://example.com/a.jpg, without user, blanks or backslashes"

MAX_URL_LENGTH = 8_000  # characters, as most servers allow
_MAX_HOST_LENGTH = 253  # DNS's own
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
# No `@`: user and password are neither sent nor a way to hide the host behind what looks like one. No `%`, so no encoding of a
# host and no scope of an IPv6 address. A `:` has digits after it, without zeros before them.
_URL = re.compile(r"(https?)://([^/?#@:%\[\]]+|\[[^/?#@%\[\]]+\])(?::([1-9][0-9]{0,4}))?([/?][^#]*)?(?:#.*)?", re.IGNORECASE)
# Letters, digits and inner hyphens between single dots. ASCII only: the forms that names of other scripts are looked up in are
# (`xn--…`), while letters and dots that look like ASCII's would become it on the way, after it was looked at.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# What ends like this is no name to the system's look-up but a number: 127.1, 0x7f.1, 2130706433, 017700000001.
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


def _networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)


# IANA's registries of special-purpose addresses, written out: `ipaddress.is_global` is another one in each version of Python.
_IPV4_SPECIAL = _networks(
    *("0.0.0.0/8", "10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # this machine, private networks
    *("100.64.0.0/10", "169.254.0.0/16"),  # a carrier's or a cloud's inside; link-local
    *("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24"),  # protocols; relays to IPv6
    *("192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),  # documentation, benchmarks
    *("224.0.0.0/4", "240.0.0.0/4"),  # multicast; reserved, and broadcast
)
_IPV6_GLOBAL = ip_network("2000::/3")  # all that has been given out; mapped, translated, private, local, multicast lie outside
_IPV6_SPECIAL = _networks(
    *("2001::/23", "2002::/16"),  # Teredo, ORCHID, benchmarks and other protocols; 6to4: both carry IPv4 addresses within
    *("2001:db8::/32", "3fff::/20"),  # documentation
    "2620:4f:8000::/48",  # a black hole for reverse look-ups
)
# Refused even where the operator allows the network around them: where clouds hand out credentials and orders to whoever asks
# from inside, and forms of IPv6 that carry an IPv4 address past the rules for those.
_NEVER = _networks(
    *("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32"),  # AWS: instance, task and pod; most other clouds
    *("168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "fd20:ce::254/128"),  # Azure, Alibaba, Oracle, Google
    *("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16"),  # mapped, NAT64, Teredo, 6to4
)


class UrlRefused(Exception):
    """A URL that is not fetched, or not to its end. Its text is for the log alone."""

    def __init__(self, reason: str, told: str = NOT_FETCHED) -> None:
        """Keep what the client is told beside the reason."""
        super().__init__(reason)
        self.told = told


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its parts.

    Attributes:
        scheme: http or https.
        host: A name in lower case, or an address as `ipaddress` writes it, without brackets.
        port: From 1 to 65535.
        target: What is asked of the server: path and query, ASCII, without blanks or control characters.
        address: Of a host that is one.
    """

    scheme: str
    host: str
    port: int
    target: str
    address: IPAddress | None

    @property
    def authority(self) -> str:
        """Host and port as the request's Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def redirected(self, location: str) -> Url:
        """Where a redirect leads; checked as if a client had named it.

        Raises:
            UrlRefused: it leads nowhere that a client may name, or from https to http: what came would be whatever somebody on
                the way puts in its place.
        """
        if _SCHEME.match(location):
            text = location
        elif location.startswith("//"):
            text = f"{self.scheme}:{location}"
        else:
            path = self.target.partition("?")[0]
            relative = {"/": "", "?": path}.get(location[:1], path[: path.rindex("/") + 1])
            text = f"{self.scheme}://{self.authority}{relative}{location}"
        url = parse_url(text)
        if self.scheme == "https" and url.scheme == "http":
            raise UrlRefused("a redirect from https to http")
        return url


def parse_url(text: str) -> Url:
    """Take a URL apart by one strict grammar.

    Raises:
        UrlRefused: it is none, or one that somebody might read differently.
    """
    if not isinstance(text, str):  # JSON has other things too
        raise UrlRefused("no text", BAD_URL)
    # Browsers drop tabs and line breaks, and take a backslash for a slash; look-ups end a name at a blank or a NUL.
    if len(text) > MAX_URL_LENGTH or not text.isprintable() or " " in text or "\\" in text:
        raise UrlRefused("characters that no URL has, or too many", BAD_URL)
    scheme = _SCHEME.match(text)
    if scheme is None or scheme[1].lower() not in _DEFAULT_PORTS:
        raise UrlRefused("a scheme that is not fetched", BAD_SCHEME)
    found = _URL.fullmatch(text)
    if found is None:
        raise UrlRefused("not of the form scheme://host:port/path", BAD_URL)
    host, address = read_host(found[2])
    port = int(found[3] or _DEFAULT_PORTS[found[1].lower()])
    if port > 65_535:
        raise UrlRefused("a port above 65535", BAD_URL)
    target = found[4] or "/"
    # What is not ASCII goes to the server as browsers send it; all that is, as it stands.
    target = quote(target if target.startswith("/") else f"/{target}", safe="".join(map(chr, range(0x21, 0x7F))))
    return Url(found[1].lower(), host, port, target, address)


def read_host(text: str) -> tuple[str, IPAddress | None]:
    """A host as it is dialled, and its address where it is one. An address is what `ipaddress` takes for one, nothing else.

    Raises:
        UrlRefused: it is neither a name nor an address.
    """
    if not text.isascii():  # before it is made lower: a Kelvin sign would become a k
        raise UrlRefused("a host that is not ASCII", BAD_URL)
    text = text.lower()
    is_bracketed = text.startswith("[")
    if is_bracketed or _NUMBER.fullmatch(text):
        try:
            address: IPAddress = IPv6Address(text[1:-1]) if is_bracketed else IPv4Address(text)
        except ValueError:
            raise UrlRefused("a host of a form that only some programs take for an address", BAD_URL) from None
        return str(address), address
    if len(text) > _MAX_HOST_LENGTH or not _NAME.fullmatch(text):
        raise UrlRefused("a host that is no name", BAD_URL)
    return text, None


def read_address(text: str) -> IPAddress:
    """An address as the system writes it.

    Raises:
        UrlRefused: it is bound to one of this machine's networks by a scope, or is none at all.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise UrlRefused(f"{text!r} is no address") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise UrlRefused(f"{text} has a scope")
    return address


def is_global(address: IPAddress) -> bool:
    """Whether an address is one of the open network, for everybody the same."""
    if isinstance(address, IPv4Address):
        return not any(address in special for special in _IPV4_SPECIAL)
    return address in _IPV6_GLOBAL and not any(address in special for special in _IPV6_SPECIAL)


def is_never_dialled(address: IPAddress) -> bool:
    """Whether an address is refused whatever the operator allows."""
    return any(address in network for network in _NEVER)
