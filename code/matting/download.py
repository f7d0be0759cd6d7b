"""Fetches the picture that a request names by URL. Runs in a fetch process, or in the pool.

Bounded in every direction: scheme, redirects, bytes, and time over all of it, so that a server that sends
one byte a second holds nothing for long.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from multigpu_inference.errors import BadRequest, PayloadTooLarge

MAX_BYTES = 25_000_000
TIMEOUT_S = 10.0
MAX_REDIRECTS = 3
_CHUNK_BYTES = 65_536


def download(url: str, *, max_bytes: int = MAX_BYTES, timeout_s: float = TIMEOUT_S) -> bytes:
    """Get the bytes behind an `http` or `https` URL, following up to three redirects.

    Args:
        url: where the picture is.
        max_bytes: most bytes taken, whatever the server announces.
        timeout_s: seconds for everything together: connecting, redirects, headers and body.

    Returns:
        The body as it came.

    Raises:
        BadRequest: the URL cannot be used, or its server does not answer with a picture's bytes in time.
        PayloadTooLarge: the body is larger than `max_bytes`.
    """
    with _Watch(timeout_s) as watch:
        try:
            for _ in range(MAX_REDIRECTS + 1):
                # A session for each hop: a connection kept from the last one may be just closing at its other end.
                with _session(watch) as session, _get(session, url, watch) as response:
                    location = response.headers.get("Location")
                    if not (response.is_redirect and location):
                        return _read_body(response, watch, max_bytes)
                    url = urljoin(url, location)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # A connection that the watch shut looks like any other broken one from here.
            watch.check()
            raise BadRequest("the picture behind 'url' could not be downloaded") from error
    raise BadRequest(f"'url' redirects more than {MAX_REDIRECTS} times")


class _Watch:
    """Shuts the sockets that were opened under it once the time is over.

    requests and urllib3 bound each read, not their sum: a server that sends its headers byte by byte would
    never time out.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(timeout_s, self._shut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._timer.join()

    def check(self) -> float:
        """Return the seconds left; raise BadRequest where there are none."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise BadRequest(f"the picture behind 'url' took longer than {self.timeout_s:g} s to download")
        return left_s

    def add(self, opened: socket.socket | None) -> None:
        if opened is not None:
            with self._lock:
                self._sockets.append(opened)

    def _shut(self) -> None:
        with self._lock:
            for opened in self._sockets:
                with contextlib.suppress(OSError):  # closed already
                    # Not SSLSocket's own shutdown, which would change the object under the thread that
                    # reads from it.
                    socket.socket.shutdown(opened, socket.SHUT_RDWR)


def _session(watch: _Watch) -> requests.Session:
    """A session whose connections report their sockets to the watch."""

    class PlainConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            watch.add(self.sock)

    class SecureConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            watch.add(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = PlainConnection

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    adapter = HTTPAdapter()
    adapter.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    session = requests.Session()
    session.trust_env = False  # no proxy, and no password out of a .netrc for a host that a stranger names
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _get(session: requests.Session, url: str, watch: _Watch) -> requests.Response:
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        raise BadRequest("'url' must begin with http:// or https://")
    # Redirects are followed by hand: requests would read a redirect's own body to its end, however large.
    # Identity: what is counted is what arrives, and nothing can be inflated.
    return session.get(
        url,
        stream=True,
        allow_redirects=False,
        timeout=watch.check(),
        headers={"Accept": "image/jpeg, image/png, image/webp", "Accept-Encoding": "identity"},
    )


def _read_body(response: requests.Response, watch: _Watch, max_bytes: int) -> bytes:
    if response.status_code != requests.codes.ok:
        raise BadRequest(f"the server behind 'url' answered with status {response.status_code}")
    too_large = PayloadTooLarge(f"the picture behind 'url' is larger than {max_bytes / 1e6:g} MB")
    announced = response.headers.get("Content-Length", "0")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    body = bytearray()
    # read1 returns what has arrived, so that the limits are looked at after every packet and not after
    # every 64 KB.
    while chunk := response.raw.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise too_large
        watch.check()
    watch.check()
    return bytes(body)
