"""The servers that strangers' URLs name: one that does whatever a path says, on every address, and a name server."""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_OK = b"HTTP/1.1 200 OK\r\n"


class World:
    """Answers GET requests on connections that somebody else accepts. What a path does not name is a photo."""

    def __init__(self, photo: bytes, drip_s: float = 1.0) -> None:
        """Keep the photo, and the seconds between the bytes of who is slow."""
        self._photo = photo
        self._drip_s = drip_s
        self.stopped = threading.Event()

    def answer(self, connection: socket.socket) -> None:
        """Read one request, answer it, and close the connection."""
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (came := connection.recv(65_536)):
                    return
                head += came
                if not head.startswith(b"GET /"):  # such as TLS where there is none
                    return
            target = head.split(b" ")[1].decode("latin-1")
            name, _, query = target.strip("/").partition("?")
            for part in self._parts(name, query):
                connection.sendall(part)

    def _parts(self, name: str, query: str) -> Iterator[bytes]:
        if re.fullmatch(r"redirect/\d{3}|itself", name):
            status, location = (302, "/itself") if name == "itself" else (int(name[-3:]), unquote(query))
            yield f"HTTP/1.1 {status} Look There\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n".encode(
                "utf-8", "surrogatepass"
            )
        elif name.startswith("status/"):
            yield f"HTTP/1.1 {name[7:]} So\r\nContent-Length: 0\r\n\r\n".encode()
        else:
            method: Callable[[], Iterator[bytes]] = getattr(self, f"_{name.replace('-', '_')}", self._announced_photo)
            yield from method()

    def _announced_photo(self) -> Iterator[bytes]:
        yield _OK + b"Content-Length: %d\r\n\r\n" % len(self._photo) + self._photo

    def _unannounced(self) -> Iterator[bytes]:
        yield _OK + b"\r\n" + self._photo

    def _chunked(self) -> Iterator[bytes]:
        yield _OK + b"Transfer-Encoding: chunked\r\n\r\n"
        for part in (self._photo[:10], self._photo[10:]):
            yield b"%x;a=b\r\n%s\r\n" % (len(part), part)
        yield b"0\r\nX-After: all\r\n\r\n"

    def _endless_head(self) -> Iterator[bytes]:
        yield _OK
        yield from self._endlessly(b"X-Field: value\r\n" * 500)

    def _long_line(self) -> Iterator[bytes]:
        yield _OK + b"X-Field: "
        yield from self._endlessly(b"a" * 8_000)

    def _many_fields(self) -> Iterator[bytes]:
        yield _OK + b"".join(b"X-%d: a\r\n" % number for number in range(1_000)) + b"\r\n" + self._photo

    def _continues(self) -> Iterator[bytes]:
        yield from self._endlessly(b"HTTP/1.1 100 Continue\r\n\r\n" * 500)

    def _gzip(self) -> Iterator[bytes]:
        body = gzip.compress(bytes(50_000_000))
        yield _OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def _deflate(self) -> Iterator[bytes]:
        yield _OK + b"Content-Encoding: identity\r\nContent-Encoding: deflate\r\n\r\n" + self._photo

    def _transfer_gzip(self) -> Iterator[bytes]:
        yield _OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"

    def _endless(self) -> Iterator[bytes]:
        yield _OK + b"\r\n"
        yield from self._endlessly(bytes(65_536))

    def _announced(self) -> Iterator[bytes]:
        yield _OK + b"Content-Length: 30000000\r\n\r\n"

    def _huge_length(self) -> Iterator[bytes]:
        yield _OK + b"Content-Length: 1%s\r\n\r\n" % (b"0" * 30)

    def _cut_off(self) -> Iterator[bytes]:
        yield _OK + b"Content-Length: 100000\r\n\r\n" + self._photo[:50]

    def _chunk_bytes(self) -> Iterator[bytes]:
        yield _OK + b"Transfer-Encoding: chunked\r\n\r\n"
        yield from self._endlessly(b"1\r\na\r\n" * 1_000)

    def _chunk_huge(self) -> Iterator[bytes]:
        yield _OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n"
        yield from self._endlessly(bytes(65_536))

    def _chunk_negative(self) -> Iterator[bytes]:
        yield _OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n" + self._photo

    def _chunk_cut_off(self) -> Iterator[bytes]:
        yield _OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % 100_000 + self._photo[:50]

    def _trailers(self) -> Iterator[bytes]:
        yield _OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
        yield from self._endlessly(b"X-Field: value\r\n" * 500)

    def _no_head(self) -> Iterator[bytes]:
        yield self._photo

    def _garbage(self) -> Iterator[bytes]:
        yield bytes(range(256)) * 100

    def _bad_status(self) -> Iterator[bytes]:
        yield b"HTTP/1.1 2e2 OK\r\n\r\n" + self._photo

    def _old_version(self) -> Iterator[bytes]:
        yield b"HTTP/9.9 200 OK\r\n\r\n" + self._photo

    def _closes(self) -> Iterator[bytes]:
        return iter(())

    def _drip(self) -> Iterator[bytes]:
        yield _OK + b"Content-Length: 100000\r\n\r\n"
        yield from self._slowly(b"x")

    def _drip_chunks(self) -> Iterator[bytes]:
        yield _OK + b"Transfer-Encoding: chunked\r\n\r\n"
        yield from self._slowly(b"1\r\nx\r\n")

    def _drip_head(self) -> Iterator[bytes]:
        yield _OK + b"X-Field: "
        yield from self._slowly(b"x")

    def _silent(self) -> Iterator[bytes]:
        self.stopped.wait(20)
        yield b""

    def _slowly(self, part: bytes) -> Iterator[bytes]:
        while not self.stopped.wait(self._drip_s):
            yield part

    def _endlessly(self, part: bytes) -> Iterator[bytes]:
        while not self.stopped.is_set():
            yield part


@contextlib.contextmanager
def listening(world: World, ports: Mapping[int, ssl.SSLContext | None], host: str = "::") -> Iterator[list[int]]:
    """Accept for a world on every address of this machine, or on one; the ports, where 0 was given those that were free."""
    with contextlib.ExitStack() as stack:
        found = []
        for port, tls in ports.items():
            is_6 = ":" in host
            family = socket.AF_INET6 if is_6 else socket.AF_INET
            listener = socket.create_server((host, port), family=family, backlog=200, dualstack_ipv6=is_6)
            stack.callback(listener.close)
            found.append(listener.getsockname()[1])
            threading.Thread(target=_accept, args=(listener, world, tls), daemon=True).start()
        yield found
        world.stopped.set()


def _accept(listener: socket.socket, world: World, tls: ssl.SSLContext | None) -> None:
    def serve(connection: socket.socket) -> None:
        try:
            connection.settimeout(20)
            world.answer(connection if tls is None else tls.wrap_socket(connection, server_side=True))
        except OSError:  # it hung up, or wants no TLS
            connection.close()

    with contextlib.suppress(OSError):  # until it is closed
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


Zone = Mapping[str, tuple[tuple[str, ...] | str, ...]]


class Names:
    """What name servers say: for each question of a name one of its answers after another, the last one from then on."""

    def __init__(self, zone: Zone) -> None:
        """Begin with the first answers."""
        self._zone = zone
        self._asked: Counter[tuple[str, int]] = Counter()

    def ask(self, name: str, version: int) -> tuple[list[str], list[str]] | None:
        """The names that this one stands for, and the addresses of the last of them; None where there is no such name."""
        aliases: list[str] = []
        while True:
            if name not in self._zone:
                return None
            answers = self._zone[name]
            answer = answers[min(self._asked[name, version], len(answers) - 1)]
            self._asked[name, version] += 1
            if not isinstance(answer, str):
                return aliases, [text for text in answer if ipaddress.ip_address(text).version == version]
            name = answer
            aliases.append(name)


def serve_names(names: Names, address: str) -> None:
    """Answer questions over UDP on port 53 of an address, for as long as this process lives."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))

    def serve() -> None:
        while True:
            question, client = server.recvfrom(4096)
            server.sendto(_dns_answer(question, names), client)

    threading.Thread(target=serve, daemon=True).start()


def _dns_answer(question: bytes, names: Names) -> bytes:
    at, labels = 12, list[str]()
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    kind: int = struct.unpack_from("!H", question, at + 1)[0]
    found = names.ask(".".join(labels).lower(), {1: 4, 28: 6}[kind]) if kind in (1, 28) else None
    owner, records = ".".join(labels), []
    for alias in found[0] if found else []:
        records.append(_record(owner, 5, _dns_name(alias)))
        owner = alias
    records += [_record(owner, kind, ipaddress.ip_address(text).packed) for text in (found[1] if found else [])]
    flags = 0x8180 if found else 0x8183
    return question[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + question[12 : at + 5] + b"".join(records)


def _record(owner: str, kind: int, data: bytes) -> bytes:
    return _dns_name(owner) + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


def _dns_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def make_certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS for these names, and the file of the certificate that its clients must trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    trusted, both = folder / "trusted.pem", folder / "server.pem"
    trusted.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    both.write_bytes(trusted.read_bytes() + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, trusted
