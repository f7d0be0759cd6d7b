"""What the operator lets strangers' URLs point to. Read where the container starts, and wherever a URL is fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from multigpu_inference.errors import SettingsError
from multigpu_inference.url_fetch.guard import IPAddress, IPNetwork, Url, UrlRefused, is_global, is_never_dialled, read_host

URLS, HOSTS, PORTS, NETWORKS = "MULTIGPU_URLS", "MULTIGPU_URL_HOSTS", "MULTIGPU_URL_PORTS", "MULTIGPU_URL_NETWORKS"
NAMES = (URLS, HOSTS, PORTS, NETWORKS)

NO_URLS = "this endpoint fetches no URLs"
_HOSTS_ALLOWED = "hosts such as example.com, or *.example.com for all below it, with commas between"
_OTHER_HOST = "'url' names a host that this endpoint does not fetch from"
_OTHER_PORT = "'url' names a port that this endpoint does not fetch from"


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """The four settings.

    Attributes:
        enabled: `MULTIGPU_URLS`: on, off: whether any URL is fetched.
        hosts: `MULTIGPU_URL_HOSTS`: the only hosts that may be named, `*.example.com` for all below one; empty: any.
        ports: `MULTIGPU_URL_PORTS`: 80,443.
        networks: `MULTIGPU_URL_NETWORKS`: networks that are dialled beside all global addresses, such as 10.0.0.0/8. Where
            clouds hand out credentials, nothing is dialled even then.
    """

    enabled: bool = True
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (80, 443)
    networks: tuple[IPNetwork, ...] = ()

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> UrlPolicy:
        """Read the settings.

        Raises:
            SettingsError: one is not allowed; one line with its name, its value and what is allowed.
        """
        switch = environ.get(URLS, "").strip().lower() or "on"
        if switch not in ("on", "off"):
            raise SettingsError(f"{URLS}={switch!r}: allowed are on, off")
        hosts = tuple(_host(environ, text) for text in _items(environ, HOSTS))
        if environ.get(HOSTS, "").strip() and not hosts:  # commas alone: an empty list of hosts, which would allow any
            raise _refused(environ, HOSTS, _HOSTS_ALLOWED)
        ports = [_port(environ, text) for text in _items(environ, PORTS)]
        return cls(
            switch == "on",
            hosts,
            tuple(ports) or cls().ports,
            tuple(_network(environ, text) for text in _items(environ, NETWORKS)),
        )

    def admit(self, url: Url) -> None:
        """Refuse a URL by what it names, before its host is looked up.

        Raises:
            UrlRefused: URLs are off; or it is another host, or another port, than is allowed.
        """
        if not self.enabled:
            raise UrlRefused(f"{URLS} is off", NO_URLS)
        if self.hosts and not any(_holds(allowed, url.host) for allowed in self.hosts):
            raise UrlRefused(f"{url.host} is not among {HOSTS}", _OTHER_HOST)
        if url.port not in self.ports:
            raise UrlRefused(f"port {url.port} is not among {PORTS}", _OTHER_PORT)

    def admit_address(self, address: IPAddress) -> None:
        """Refuse an address that is not to be dialled.

        Raises:
            UrlRefused: it is not one of the open network, nor of a network that the operator allows.
        """
        is_allowed = is_global(address) or any(address in network for network in self.networks)
        if is_never_dialled(address) or not is_allowed:
            raise UrlRefused(f"{address} is not global, nor in {NETWORKS}")


def _holds(allowed: str, host: str) -> bool:
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def _items(environ: Mapping[str, str], name: str) -> list[str]:
    return [item for item in re.split(r"[,\s]+", environ.get(name, "")) if item]


def _host(environ: Mapping[str, str], text: str) -> str:
    below = "*." if text.startswith("*.") else ""
    try:
        host, address = read_host(text.removeprefix(below))
    except UrlRefused:
        host, address = "", None
    if not host or (below and address is not None):
        raise _refused(environ, HOSTS, _HOSTS_ALLOWED)
    return below + host


def _port(environ: Mapping[str, str], text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text) or int(text) > 65_535:
        raise _refused(environ, PORTS, "ports from 1 to 65535, with commas between")
    return int(text)


def _network(environ: Mapping[str, str], text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError:
        raise _refused(environ, NETWORKS, "networks such as 10.0.0.0/8, with commas between") from None


def _refused(environ: Mapping[str, str], name: str, allowed: str) -> SettingsError:
    return SettingsError(f"{name}={environ[name].strip()!r}: allowed is {allowed}")
