"""Connects to a host that a stranger named, if every address of it may be dialled. Runs in the fetch process."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address

from multigpu_inference.url_fetch.guard import IPAddress, Url, UrlRefused, read_address
from multigpu_inference.url_fetch.look_up import look_up
from multigpu_inference.url_fetch.policy import UrlPolicy
from multigpu_inference.url_fetch.watch import Watch

# What this machine has run out of: nothing that the address could help.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)
# A machine without IPv6, as most containers are, says for ever that it has no port for it.
_EXHAUSTED_IPV6 = tuple(code for code in EXHAUSTED if code != errno.EADDRNOTAVAIL)


def dial(address: IPAddress, port: int, limit_s: float, watch: Watch) -> socket.socket:
    """Open a TCP connection to one address, within so many seconds; the watch holds the socket from before it connects.

    Raises:
        ServingError: the watch's time is over.
        OSError: it does not answer.
    """
    opened = socket.socket(socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET)
    try:
        opened.settimeout(limit_s)
        watch.add(opened)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.connect((str(address), port))
        opened.settimeout(watch.check())
    except BaseException:
        opened.close()
        raise
    return opened


@dataclass(frozen=True, slots=True)
class Network:
    """The network as this machine has it.

    Attributes:
        look_up: All addresses of a name.
        dial: Opens a connection to an address and a port, within so many seconds.
    """

    look_up: Callable[[str, Watch], list[IPAddress]] = look_up
    dial: Callable[[IPAddress, int, float, Watch], socket.socket] = dial


def connect(url: Url, policy: UrlPolicy, watch: Watch, network: Network) -> socket.socket:
    """Open a TCP connection to the first of a host's addresses that takes it.

    The name is looked up once, and what is dialled are the addresses that were looked at: a name server may give another answer
    the next time. One refused address refuses them all: who answers with it beside others wants it dialled, sooner or later.

    Args:
        url: Whose host and port.
        policy: Says which addresses may be dialled.
        watch: Bounds the look-up and all addresses together.
        network: Where names are looked up, and addresses dialled.

    Raises:
        UrlRefused: an address is refused; there is none; or none of them answers.
        ServingError: the time is over, or names cannot be looked up now.
        OSError: this machine has run out of something.
    """
    addresses = [url.address] if url.address is not None else network.look_up(url.host, watch)
    for address in addresses:
        policy.admit_address(address)
    failed: OSError | None = None
    for at, address in enumerate(addresses):
        try:
            # One that does not answer leaves the others their share.
            opened = network.dial(address, url.port, watch.check() / (len(addresses) - at), watch)
            try:
                # Whatever stands between us and the network: who is spoken to is who was looked at.
                peer = read_address(str(opened.getpeername()[0]))
                if peer != address:
                    raise UrlRefused(f"{address} was dialled and {peer} answers")
            except BaseException:
                opened.close()
                raise
            return opened
        except OSError as error:
            watch.check()
            if error.errno in (_EXHAUSTED_IPV6 if isinstance(address, IPv6Address) else EXHAUSTED):
                raise
            failed = error
    raise UrlRefused(f"no address of {url.host} answers: {failed}" if failed else f"{url.host} has no address")
