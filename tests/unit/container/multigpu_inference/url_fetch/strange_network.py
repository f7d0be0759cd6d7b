"""A network of strangers, in memory: its names, and servers at every address. It keeps whom it was asked to dial."""

from __future__ import annotations

import socket
import ssl
import threading

from hostile_urls import ZONE
from multigpu_inference.url_fetch.connect import Network
from multigpu_inference.url_fetch.guard import IPAddress, UrlRefused, read_address
from multigpu_inference.url_fetch.watch import Watch
from world import Names, World, Zone

PHOTO = b"photo" * 1000


class _Dialled(socket.socket):
    """One end of a pair that says that its other end is at an address."""

    peer: tuple[str, int] = ("", 0)

    def getpeername(self) -> tuple[str, int]:
        return self.peer


class StrangeNetwork:
    """Names and servers.

    Attributes:
        dialled: Address and port of each connection.
        asked: Each name that was looked up.
        peer: Who says that it answers instead of who was dialled.
        silent: Addresses that refuse connections.
        tls: What port 443 has.
    """

    def __init__(self, zone: Zone = ZONE, tls: ssl.SSLContext | None = None) -> None:
        self.dialled: list[tuple[str, int]] = []
        self.asked: list[str] = []
        self.peer: str | None = None
        self.silent: set[str] = set()
        self.world = World(PHOTO, drip_s=0.02)
        self._names = Names(zone)
        self.tls = tls

    @property
    def network(self) -> Network:
        return Network(self._look_up, self._dial)

    def _look_up(self, name: str, watch: Watch) -> list[IPAddress]:
        watch.check()
        self.asked.append(name)
        found = [self._names.ask(name, version) for version in (4, 6)]
        addresses = [read_address(text) for answer in found if answer for text in answer[1]]
        if not addresses:
            raise UrlRefused(f"{name} is not looked up")
        return addresses

    def _dial(self, address: IPAddress, port: int, limit_s: float, watch: Watch) -> socket.socket:
        self.dialled.append((str(address), port))
        if str(address) in self.silent:
            raise ConnectionRefusedError
        near, far = socket.socketpair()
        opened = _Dialled(fileno=near.detach())
        opened.peer = (self.peer or str(address), port)
        watch.add(opened)
        opened.settimeout(limit_s)
        threading.Thread(target=self._serve, args=(far, port), daemon=True).start()
        return opened

    def _serve(self, far: socket.socket, port: int) -> None:
        try:
            far.settimeout(5)
            self.world.answer(far if port != 443 or self.tls is None else self.tls.wrap_socket(far, server_side=True))
        except OSError:  # it wants no TLS, or hung up
            far.close()
