"""Archives of strangers: by each family of tricks one or more, and whoever unpacks refuses them before it touches anything."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from archive import unpack_model
from demo_error import DemoError
from demo_model import take_model
from deploy_error import Invalid
from local_model import unpack_read_only
from model_archive import read_archive

pytestmark = [pytest.mark.hostile, pytest.mark.timeout(30)]

SCRIPT, WEIGHTS = "code/inference.py", "model.pt"


def member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "", pax: Mapping[str, str] | None = None
) -> bytes:
    """A member's header and content, whatever nonsense they are."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = kind, link, len(content), dict(pax or {})
    padded = content + bytes(-len(content) % tarfile.BLOCKSIZE)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + padded


def header(name: str, kind: bytes, size: int) -> bytes:
    """A header that announces more than there is behind it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def plain(*members: bytes) -> bytes:
    """An archive that would be good but for these members."""
    good = member(SCRIPT, b"STAGES = 1\n") + member(WEIGHTS)
    return good + b"".join(members) + bytes(2 * tarfile.BLOCKSIZE)


def packed(*members: bytes) -> bytes:
    return gzip.compress(plain(*members), 1)


def later(*members: bytes) -> Callable[[], bytes]:
    """Makes the archive when it is needed."""
    return lambda: packed(*members)


def first(*members: bytes) -> Callable[[], bytes]:
    """Makes an archive that begins with them: tarfile reads its first header before any other."""
    return lambda: gzip.compress(b"".join(members) + plain(), 1)


def with_header_byte(position: int, value: bytes) -> bytes:
    """A good archive with other bytes in its first header; its checksum is made right again."""
    data = bytearray(plain())
    data[position : position + len(value)] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return gzip.compress(bytes(data), 1)


def families() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for name in ("../out", "a/../../out", "..", "/etc/out", "//out", "./../out", "code/../..", "/"):
        yield f"path {name}", later(member(name))
        yield f"folder {name}", later(member(name, b"", tarfile.DIRTYPE))
        yield f"pax path {name}", later(member("harmless", pax={"path": name}))
    for name in ("a\nb", "a\x1b[31m", "a\u202eb", "a\udcff", "n" * 256, "/".join(["n" * 100] * 11), "a\x7f"):
        yield f"name {ascii(name)[:20]}", later(member(name))
    for name in ("a\0b", "", "."):
        yield f"pax name {name!r}", later(member("harmless", pax={"path": name}))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        for link in ("/etc/passwd", "../out", SCRIPT, "."):
            yield f"link {kind!r} to {link}", later(member("a", b"", kind, link))
        yield (
            f"through link {kind!r}",
            later(member("d", b"", kind, "../out"), member("d/x")),
        )
        yield (
            f"script is link {kind!r}",
            script_is_a_link(kind),
        )
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"Z", b"V", b"D"):
        yield f"kind {kind!r}", later(member("a", b"", kind))
    yield "gnu sparse", lambda: packed(header("a", tarfile.GNUTYPE_SPARSE, 0))
    yield (
        "pax sparse 0.1",
        later(member("a", pax={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)})),
    )
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    yield "pax sparse 1.0", lambda: packed(member("a", b"1\n0\n1\n" + bytes(506) + b"x", pax=sparse))
    yield "pax sparse nonsense", lambda: packed(member("a", b"?", pax=sparse))
    yield "pax sparse 1.0 of many numbers", later(member("a", b"1000000\n" + b"1\n" * 500_000, pax=sparse))
    for front in (first, later):
        yield f"{front.__name__}: long name below nothing", front(header("a", tarfile.GNUTYPE_LONGNAME, -512))
        yield f"{front.__name__}: pax below nothing", front(header("a", tarfile.XHDTYPE, -512))
        yield f"{front.__name__}: pax in pax", front(*[header("a", tarfile.XHDTYPE, 512) + bytes(512)] * 2000)
        yield f"{front.__name__}: pax sparse 0.1 nonsense", front(member("a", pax={"GNU.sparse.map": "0,"}))
        yield f"{front.__name__}: pax sparse 1.0 nonsense", front(member("a", b"?", pax=sparse))
    for once, again in ((WEIGHTS, WEIGHTS), (SCRIPT, f"./{SCRIPT}"), ("a/b", "a//b"), ("a", "a/./")):
        yield f"twice {once} {again}", later(member(once), member(again))
    yield "a folder that is a file", lambda: packed(member("a"), member("a/b"))
    yield "a file that is a folder", lambda: packed(member("a/b"), member("a"))
    yield "a file where a folder was", lambda: packed(member("a", b"", tarfile.DIRTYPE), member("a"))
    yield "too many", lambda: packed(member("a", b"") * 50_001)
    yield "gzip bomb", lambda: gzip.compress(bytes(1 << 20), 9) * 400
    yield "a member that is a bomb", lambda: bomb_in_a_member()
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        yield f"long header {kind!r}", later(header("a", kind, 1 << 30), bytes(1 << 20))
    yield "a size that is not there", lambda: packed(header("a", tarfile.REGTYPE, 1 << 50))
    yield "a size below nothing", lambda: with_header_byte(124, b"\xff" * 12)
    yield "pax size", lambda: packed(member("a", pax={"size": str(1 << 62)}))
    yield "pax size below nothing", lambda: packed(member("a", pax={"size": "-1024"}))
    yield "pax size nonsense", lambda: packed(member("a", pax={"size": "many"}))
    yield "cut off", lambda: packed()[:-40]
    yield "cut off within", lambda: gzip.compress(plain(member("a", bytes(4096)))[:3000])
    yield "not packed", lambda: plain()
    yield "nothing", lambda: b""
    yield "noise", lambda: bytes(range(256)) * 40
    yield "noise in gzip", lambda: gzip.compress(bytes(range(256)) * 40)
    yield "damaged deflate", lambda: packed()[:20] + b"\xff" * 60
    yield "a page", lambda: b"<html>404</html>"


def script_is_a_link(kind: bytes) -> Callable[[], bytes]:
    return lambda: gzip.compress(member(SCRIPT, b"", kind, "/etc/passwd") + member(WEIGHTS) + bytes(1024))


def bomb_in_a_member() -> bytes:
    zeros = gzip.compress(bytes(1 << 20), 9)
    return gzip.compress(header("a", tarfile.REGTYPE, 400 << 20)) + zeros * 400 + gzip.compress(bytes(1024))


FAMILIES = dict(families())


@pytest.fixture(scope="module", params=FAMILIES)
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "model.tar.gz"
    path.write_bytes(FAMILIES[request.param]())
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder in a folder, for whatever goes one up."""
    place = tmp_path / "outer" / "inner"
    place.mkdir(parents=True)
    return place


def left(place: Path) -> list[Path]:
    return [path for path in place.parent.rglob("*") if path != place]


def test_nobody_unpacks_any_of_it(hostile: Path, place: Path) -> None:
    (place / "kept").touch()
    with pytest.raises((DemoError, tarfile.TarError, EOFError, OSError)):
        unpack_model(hostile, place)
    with pytest.raises(DemoError) as served:  # `make serve MODEL=`
        take_model(hostile, place)
    with pytest.raises(Invalid) as deployed:
        read_archive(hostile)
    with pytest.raises(Invalid) as deployed_here:  # `deploy --local`
        unpack_read_only(hostile, place / "model")
    assert all(str(refused.value).isprintable() for refused in (served, deployed, deployed_here))
    assert left(place) == [place / "kept"]


def test_a_good_one_goes_through_all_of_them(place: Path) -> None:
    path = place / "model.tar.gz"
    folders = member("./", b"", tarfile.DIRTYPE) + member("code", b"", tarfile.DIRTYPE) + member("code/", b"", tarfile.DIRTYPE)
    path.write_bytes(packed(folders, member("./weights/a b-ü.bin", bytes(5000))))
    assert read_archive(path).stages == 1
    unpack_model(path, place / "a")
    take_model(path, place / "b")
    unpack_read_only(path, place / "c")
    for folder in (place / "a", place / "b" / "model", place / "c"):
        assert (folder / "weights" / "a b-ü.bin").read_bytes() == bytes(5000)
        assert (folder / SCRIPT).read_bytes() == b"STAGES = 1\n"


def test_what_compresses_well_is_no_bomb(place: Path) -> None:
    """Untrained weights are zeros: within the first 256 MiB that is nobody's business."""
    path = place / "model.tar.gz"
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as file:
        file.write(plain(member("zeros.bin", bytes(40 << 20))))
    path.write_bytes(stream.getvalue())
    assert read_archive(path).weights_bytes == (40 << 20) + 1
