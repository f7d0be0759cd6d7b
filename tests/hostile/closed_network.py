"""A program that runs in a network of its own, where every address is this machine's, answers, and every call is noted.

`test_urls.py` starts it: `unshare --net --mount python closed_network.py FOLDER SCRIPT`. It starts the real container with a
script (`guarded`: the reference application; `naive`: `requests.get`, as in many an example), asks it for every URL, and writes
what was answered and who was called to FOLDER/seen.json.
"""

from __future__ import annotations

import ctypes
import fcntl
import http.client
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("tests", "container", "code", "")]

from hostile_urls import GLOBAL, GOOD_URLS, SLOW, ZONE, hostile  # noqa: E402
from integration.endpoint import Endpoint  # noqa: E402
from integration.whole_photo import whole_photo_endpoint  # noqa: E402
from unit.code.matting.pictures import corners, file_of  # noqa: E402
from world import Names, World, listening, make_certificate, serve_names  # noqa: E402

# Who asks the endpoint, so that its calls are told from the container's.
CLIENT, NAME_SERVER = "127.9.9.9", "127.0.0.53"
PORTS = (21, 22, 25, 80, 443, 6379, 8080, 9200, 11211, 65_535, 65_534)
PHOTO = file_of(corners())

NAIVE = """
import io, json
import requests
from PIL import Image

FETCH_TYPES = ("application/json",)

def model_fn(model_dir):
    return None

def fetch_fn(body, content_type, context):
    return requests.get(json.loads(body)["url"], timeout=2).content

def input_fn(body, content_type):
    return Image.open(io.BytesIO(bytes(body))).size

def predict_fn(size, model):
    return size

def output_fn(size, accept):
    return json.dumps(size)
"""

Call: TypeAlias = tuple[str, str, int]  # tcp or udp, an address, a port


def make_every_address_ours() -> None:
    """Bring the loopback device up, and take every address of both families for this machine's."""
    with socket.socket() as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
    device = struct.pack("HHi", 8, 4, socket.if_nametoindex("lo"))  # RTA_OIF
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as routes:
        for family, scope in ((socket.AF_INET, 254), (socket.AF_INET6, 0)):
            # No bits of a destination: all; the main table, by a program, and RTN_LOCAL.
            message = struct.pack("BBBBBBBBI", family, 0, 0, 0, 254, 3, scope, 2, 0) + device
            # RTM_NEWROUTE: a request to create one, and to acknowledge it.
            routes.send(struct.pack("IHHII", 16 + len(message), 24, 0x1 | 0x4 | 0x400, 1, 0) + message)
            (failed,) = struct.unpack_from("i", routes.recv(4096), 16)
            if failed:
                raise OSError(-failed, "no route to every address")


class Calls:
    """Every packet that begins a call, whether anybody listens for it or not."""

    def __init__(self) -> None:
        """Begin to listen, before anything else does."""
        self.made: Counter[Call] = Counter()
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        # Packets of more than 200 bytes begin nothing and would take others' room: load the length, compare, take, leave.
        steps = ((0x80, 0, 0, 0), (0x25, 1, 0, 200), (0x06, 0, 0, 128), (0x06, 0, 0, 0))
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        attach = struct.pack("HL", len(steps), ctypes.addressof(program))
        self._packets.setsockopt(socket.SOL_SOCKET, 26, attach)  # SO_ATTACH_FILTER
        threading.Thread(target=self._listen, daemon=True).start()

    def lost(self) -> int:
        """Packets that came faster than they were looked at."""
        _, dropped = struct.unpack("II", self._packets.getsockopt(263, 6, 8))  # PACKET_STATISTICS
        return int(dropped)

    def _listen(self) -> None:
        while True:
            packet, origin = self._packets.recvfrom(128)
            if origin[2] == 4 and (call := _call(packet[14:])):  # PACKET_OUTGOING: on this device each passes twice
                self.made[call] += 1


def _call(packet: bytes) -> Call | None:
    """Whom a packet of IP calls; None where it belongs to a call that is under way, or is the client's."""
    if packet[0] >> 4 == 4:
        protocol, source, to, rest = packet[9], packet[12:16], packet[16:20], packet[(packet[0] & 15) * 4 :]
    else:
        protocol, source, to, rest = packet[6], packet[8:24], packet[24:40], packet[40:]
    address, port = str(ip_address(to)), int.from_bytes(rest[2:4])
    if CLIENT in (str(ip_address(source)), address):
        return None
    if protocol == socket.IPPROTO_TCP:
        return ("tcp", address, port) if rest[13] & 0x12 == 0x02 else None  # SYN without ACK
    if protocol == socket.IPPROTO_UDP and (address, port) != (NAME_SERVER, 53) and str(ip_address(source)) != NAME_SERVER:
        return "udp", address, port
    return None


def ask(endpoint: Endpoint, url: str) -> dict[str, Any]:
    """Ask the endpoint for the photo behind a URL; what it answered, and how long that took."""
    connection = http.client.HTTPConnection(CLIENT, endpoint.port, timeout=60, source_address=(CLIENT, 0))
    began = time.monotonic()
    headers = {"Content-Type": "application/json", "Accept": "image/png"}
    connection.request("POST", "/invocations", json.dumps({"url": url}), headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    text = body.decode() if answer.status != 200 else ""
    return {"url": url, "status": answer.status, "text": text, "seconds": time.monotonic() - began}


def ask_beside_slow_ones(endpoint: Endpoint) -> dict[str, Any]:
    """Ask for good photos, while two URLs send a byte a second, and before that."""
    quiet = [ask(endpoint, GOOD_URLS[0]) for _ in range(200)]
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(ask, endpoint, f"http://good.example/{name}") for name in SLOW[:2]]
        time.sleep(0.5)  # for them to be under way; they take ten seconds
        good = []
        while not all(each.done() for each in slow):
            good.append(ask(endpoint, GOOD_URLS[0]))
        return {"quiet": quiet, "good": good, "slow": [each.result() for each in slow]}


def run(folder: Path, script: str) -> dict[str, Any]:
    """All of it."""
    make_every_address_ours()
    (folder / "resolv.conf").write_text(f"nameserver {NAME_SERVER}\noptions timeout:2 attempts:1\n")
    subprocess.run(["mount", "--bind", folder / "resolv.conf", "/etc/resolv.conf"], check=True)
    calls = Calls()
    serve_names(Names(ZONE), NAME_SERVER)
    tls, trusted = make_certificate(folder, "good.example", "www.good.example")
    trust = {"SSL_CERT_FILE": str(trusted), "REQUESTS_CA_BUNDLE": str(trusted)}
    environment = {**trust, "MULTIGPU_NUM_REPLICAS": "1", "MULTIGPU_USER": "root"}
    if script == "naive":
        endpoint = Endpoint(folder, MULTIGPU_FRONT_END="http", **environment).with_source(NAIVE)
    else:
        endpoint = whole_photo_endpoint(folder, **environment)
    urls = hostile()
    if script == "naive":  # which goes on for as long as somebody sends
        urls = [(family, url) for family, url in urls if family != "trick"]
    with listening(World(PHOTO), {port: tls if port == 443 else None for port in PORTS}):
        try:
            (plan,) = endpoint.start().ready().events("plan")
            with ThreadPoolExecutor(plan["fetching"]) as threads:  # so many that none is refused for being one too many
                began = time.monotonic()
                answers = list(threads.map(lambda each: {"family": each[0]} | ask(endpoint, each[1]), urls))
                took = time.monotonic() - began
                good = list(threads.map(lambda url: ask(endpoint, url), GOOD_URLS))
            beside = {} if script == "naive" else ask_beside_slow_ones(endpoint)
            deaths = endpoint.events("worker_died")
            reasons = {event["request_id"]: event.get("reason", "") for event in endpoint.events("request")}
        finally:
            endpoint.clean_up()
    wanted = {("tcp", address, port) for address in GLOBAL for port in (80, 443)}
    return {
        **{"hostile": answers, "good": good, "beside": beside, "deaths": deaths, "seconds": took, "lost": calls.lost()},
        "reasons": reasons,
        "forbidden": {" ".join(map(str, call)): count for call, count in calls.made.items() if call not in wanted},
        "called": sum(count for call, count in calls.made.items() if call in wanted),
    }


if __name__ == "__main__":
    where = Path(sys.argv[1])
    (where / "seen.json").write_text(json.dumps(run(where, sys.argv[2])))
