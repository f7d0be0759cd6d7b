"""Gets what a stranger's URL points to, if it points to the open network. Runs in the fetch process.

Bounded in every direction: schemes, hosts, ports, addresses, redirects, bytes, and time over all of it, so that a server that
sends one byte a second holds nothing for long. Nothing is sent but what stands below: no cookies, no password, no referrer; no
proxy is asked, and nothing is read from a user's files.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from functools import cache
from http.client import HTTPException
from typing import TypeAlias

from multigpu_inference.errors import BadRequest, PayloadTooLarge, Unavailable
from multigpu_inference.url_fetch.connect import EXHAUSTED, Network, connect
from multigpu_inference.url_fetch.guard import NOT_FETCHED, Url, UrlRefused, parse_url
from multigpu_inference.url_fetch.policy import UrlPolicy
from multigpu_inference.url_fetch.response import Response
from multigpu_inference.url_fetch.watch import SecondsLeft, Watch, forever

Reserve: TypeAlias = Callable[[int], None]

MAX_BYTES = 25_000_000
TIMEOUT_S = 10.0
MAX_REDIRECTS = 3
_OK = 200


def fetch_url(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
    seconds_left: SecondsLeft = forever,
    accept: str = "*/*",
    reserve: Reserve = lambda count: None,
    policy: UrlPolicy | None = None,
    network: Network | None = None,
) -> bytearray:
    """Get the bytes behind an `http` or `https` URL, following up to three redirects.

    Args:
        url: As a client named it; what is no text is refused like any other that is none.
        max_bytes: Most bytes taken, whatever the server announces.
        timeout_s: Seconds for everything together: look-up, connecting, redirects, head and body.
        seconds_left: For how many seconds somebody still waits for it, such as `context.seconds_left`.
        accept: What the server is asked for.
        reserve: Takes room for bytes before they come.
        policy: What may be fetched; None: what the operator has set (`MULTIGPU_URL…`).
        network: Where names are looked up and addresses dialled; None: the machine's.

    Returns:
        The body as it came.

    Raises:
        BadRequest: the URL is not one that is fetched, or its server does not give it in time. The reason is in the log.
        PayloadTooLarge: there are more than `max_bytes`.
        Unavailable: names cannot be looked up now, or this machine has run out of descriptors, threads or ports.
        DeadlineExceeded: nobody waits for it any more.
        ServingError: what `reserve` raises.
    """
    policy = UrlPolicy.from_env(os.environ) if policy is None else policy
    with Watch(timeout_s, seconds_left) as watch:
        watch.check()

        def reach(url: Url) -> socket.socket:
            policy.admit(url)
            return _secured(connect(url, policy, watch, network or Network()), url)

        try:
            return _fetch(parse_url(url), reach, accept, _Body(max_bytes, reserve, watch))
        except UrlRefused as refused:
            raise BadRequest(refused.told) from refused
        except (HTTPException, OSError, ValueError) as error:
            # A connection that the watch shut looks like any other broken one from here.
            watch.check()
            if isinstance(error, OSError) and error.errno in EXHAUSTED:
                raise Unavailable("nothing more can be fetched now") from error
            raise BadRequest(NOT_FETCHED) from error


def _fetch(url: Url, reach: Callable[[Url], socket.socket], accept: str, body: _Body) -> bytearray:
    for _ in range(MAX_REDIRECTS + 1):
        with reach(url) as opened:
            opened.sendall(_request(url, accept))
            answer = Response(opened)
            if answer.location is None:
                return body.read(answer)
            url = url.redirected(answer.location)
    raise UrlRefused("too many redirects", f"'url' redirects more than {MAX_REDIRECTS} times")


def _secured(opened: socket.socket, url: Url) -> socket.socket:
    if url.scheme == "http":
        return opened
    try:  # the certificate is for the host that was named, though an address was dialled
        return _tls().wrap_socket(opened, server_hostname=url.host)
    except BaseException:
        opened.close()
        raise


@cache  # reading all certificates takes a while
def _tls() -> ssl.SSLContext:
    # Named, though these are the default: that passes over a file that cannot be opened, and would trust nobody from then on.
    paths = ssl.get_default_verify_paths()
    return ssl.create_default_context(cafile=paths.cafile, capath=paths.capath)


def _request(url: Url, accept: str) -> bytes:
    head = {
        "Host": url.authority,
        "User-Agent": "multigpu-inference",
        "Accept": accept,
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    lines = [f"GET {url.target} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    return "\r\n".join(lines).encode("ascii")


class _Body:
    """Reads a body into memory as far as there is room for it."""

    def __init__(self, max_bytes: int, reserve: Reserve, watch: Watch) -> None:
        self._max_bytes = max_bytes
        self._reserve = reserve
        self._watch = watch

    def read(self, answer: Response) -> bytearray:
        if answer.status != _OK:
            raise UrlRefused(f"status {answer.status}", f"the server behind 'url' answered with status {answer.status}")
        reserved = answer.announced or 0
        self._refuse_over(reserved)
        self._reserve(reserved)
        body = bytearray()
        # What has arrived, so that the limits are looked at after every packet and not after every 64 KB.
        while came := answer.read():
            self._refuse_over(len(body) + len(came))
            if len(body) + len(came) > reserved:
                self._reserve(len(body) + len(came) - reserved)
                reserved = len(body) + len(came)
            body += came
            self._watch.check()
        self._watch.check()
        return body

    def _refuse_over(self, count: int) -> None:
        if count > self._max_bytes:
            raise PayloadTooLarge(f"what 'url' points to is larger than {self._max_bytes / 1e6:g} MB")
