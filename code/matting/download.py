"""Fetches the picture that a request names by URL. Runs in a fetch process, or in the pool.

Bounded in every direction: scheme, redirects, bytes, and time over all of it, so that a server that sends
one byte a second holds nothing for long.
"""

from __future__ import annotations

import socket
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from matting.connect import connect
from matting.room import Reserve, unbounded
from matting.watch import SecondsLeft, Watch, forever
from multigpu_inference.errors import BadRequest, PayloadTooLarge

MAX_BYTES = 25_000_000
TIMEOUT_S = 10.0
MAX_REDIRECTS = 3
_CHUNK_BYTES = 65_536


def download(
    url: str,
    *,
    max_bytes: int = MAX_BYTES,
    timeout_s: float = TIMEOUT_S,
    seconds_left: SecondsLeft = forever,
    reserve: Reserve = unbounded,
) -> bytearray:
    """Get the bytes behind an `http` or `https` URL, following up to three redirects.

    Args:
        url: where the picture is.
        max_bytes: most bytes taken, whatever the server announces.
        timeout_s: seconds for everything together: look-up, connecting, redirects, headers and body.
        seconds_left: for how many seconds somebody still waits for it.
        reserve: takes room for bytes before they come.

    Returns:
        The body as it came.

    Raises:
        BadRequest: the URL cannot be used, or its server does not answer with a picture's bytes in time.
        PayloadTooLarge: the body is larger than `max_bytes`.
        DeadlineExceeded: nobody waits for it any more.
        ServingError: what `reserve` raises; or too many names are being looked up.
    """
    with Watch(timeout_s, seconds_left) as watch:
        try:
            for _ in range(MAX_REDIRECTS + 1):
                # A session for each hop: a connection kept from the last one may be just closing at its other end.
                with _session(watch) as session, _get(session, url, watch) as response:
                    location = response.headers.get("Location")
                    if not (response.is_redirect and location):
                        return _read_body(response, watch, max_bytes, reserve)
                    url = urljoin(url, location)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # A connection that the watch shut looks like any other broken one from here.
            watch.check()
            raise BadRequest("the picture behind 'url' could not be downloaded") from error
    raise BadRequest(f"'url' redirects more than {MAX_REDIRECTS} times")


def _session(watch: Watch) -> requests.Session:
    """A session whose connections are made under the watch."""

    class PlainConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(self, watch)

    class SecureConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connected(self, watch)

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


def _connected(connection: HTTPConnection, watch: Watch) -> socket.socket:
    try:
        return connect(connection.host, connection.port, watch)
    except OSError as error:  # as such urllib3 would take it for one of sending, which it passes over
        raise NewConnectionError(connection, "no address of the host answers") from error


def _get(session: requests.Session, url: str, watch: Watch) -> requests.Response:
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


def _read_body(response: requests.Response, watch: Watch, max_bytes: int, reserve: Reserve) -> bytearray:
    if response.status_code != requests.codes.ok:
        raise BadRequest(f"the server behind 'url' answered with status {response.status_code}")
    too_large = PayloadTooLarge(f"the picture behind 'url' is larger than {max_bytes / 1e6:g} MB")
    announced = response.headers.get("Content-Length", "0")
    reserved = int(announced) if announced.isdecimal() else 0
    if reserved > max_bytes:
        raise too_large
    reserve(reserved)
    body = bytearray()
    # read1 returns what has arrived, so that the limits are looked at after every packet and not after
    # every 64 KB.
    while chunk := response.raw.read1(_CHUNK_BYTES):
        if len(body) + len(chunk) > max_bytes:
            raise too_large
        if len(body) + len(chunk) > reserved:
            reserve(len(body) + len(chunk) - reserved)
            reserved = len(body) + len(chunk)
        body += chunk
        watch.check()
    watch.check()
    return body
