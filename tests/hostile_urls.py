"""URLs of strangers who want something else than a photo, by family, and the names in them. Used by tests of several folders.

Each must end in one line for its client, and none may make the container call an address that is not in `GLOBAL`, or another
port than 80 and 443.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import quote

GOOD, OTHER, THIRD = "93.184.215.14", "151.101.1.140", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
GLOBAL = frozenset((GOOD, OTHER, THIRD))

# Where something answers that a stranger has no business with.
INSIDE_4 = (
    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "0.0.0.1", "10.0.0.1", "10.255.255.254", "172.16.0.1", "172.31.255.254"),
    *("192.168.0.1", "192.168.1.254", "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.169.253", "169.254.1.1"),
    *("100.64.0.1", "100.127.255.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.0.8", "192.0.2.1"),
    *("198.18.0.1", "198.19.255.254", "198.51.100.7", "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.250"),
    *("240.0.0.1", "255.255.255.255"),
)
INSIDE_6 = (
    *("::1", "::", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:93.184.215.14", "::127.0.0.1", "::169.254.169.254"),
    *("::ffff:0:169.254.169.254", "64:ff9b::169.254.169.254", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "2002:7f00:1::"),
    *("2001::1", "2001:0:a9fe:a9fe::5601:5601", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1"),
    *("fe80::1", "fec0::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "ff02::1", "ff0e::1"),
    *("100::1", "4000::1", "5f00::1"),
)
INSIDE = INSIDE_4 + INSIDE_6

# What name servers say: for each question after another, the last one from then on. A text is the name that it stands for.
ZONE: dict[str, tuple[tuple[str, ...] | str, ...]] = {
    "good.example": ((GOOD,),),
    "other.example": ((OTHER, THIRD),),
    "www.good.example": ("good.example",),
    "wrong.example": ((GOOD,),),  # its certificate is another's
    "nothing.example": ((),),
    **{f"inside-{i}.example": ((address,),) for i, address in enumerate(INSIDE)},
    **{f"mixed-{i}.example": ((GOOD, address),) for i, address in enumerate(("169.254.169.254", "127.0.0.1", "fd00:ec2::254"))},
    **{f"mixed-{i + 3}.example": ((address, GOOD),) for i, address in enumerate(("169.254.170.2", "10.0.0.1", "::1"))},
    "mixed-6.example": ((GOOD, OTHER, THIRD, "::ffff:169.254.169.254"),),
    "mixed-7.example": ((GOOD,) * 3 + ("192.168.0.1",),),
    # Good when it is looked at, and another when it is dialled.
    **{
        f"rebinds-{i}.example": ((GOOD,), (address,))
        for i, address in enumerate(("169.254.169.254", "127.0.0.1", "fd00:ec2::254"))
    },
    "rebinds-3.example": ((GOOD, OTHER), (GOOD, "10.0.0.1"), ("10.0.0.1",)),
    "alias-0.example": ("inside-10.example",),
    "alias-1.example": ("alias-0.example",),
    "alias-2.example": ("alias-1.example",),
    "alias-3.example": ("mixed-0.example",),
}
REBINDING = tuple(name for name in ZONE if name.startswith("rebinds"))


def _spellings(address: str) -> Iterator[str]:
    """Ways to write an IPv4 address that the system's look-up, or some program, takes for it."""
    a, b, c, d = (int(part) for part in address.split("."))
    number = int(ip_address(address))
    yield from (f"{number}", f"{number:#x}", f"{number:#X}", f"0{number:o}", f"{number:#018x}", f"{number + 2**32}")
    yield from (f"{a}.{(b << 16) + (c << 8) + d}", f"{a}.{b}.{(c << 8) + d}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}")
    yield from (f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:#x}.{b}.0{c:o}.{d}", f"{a:04}.{b:04}.{c:04}.{d:04}")
    yield from (f"{address}.", f"{a + 256}.{b + 256}.{c + 256}.{d + 256}", f"{a}.{b}.{c}.{d:#x}", f"{a:#x}.{number & 0xFFFFFF}")


def _redirects() -> Iterator[str]:
    targets = (
        "http://169.254.169.254/latest/meta-data/",
        "http://inside-11.example/v2/credentials",
        "http://[fd00:ec2::254]/",
        "//169.254.169.254/",
        "http://good.example@169.254.169.254/",
        "http://0xa9fea9fe/",
        "http://127.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_INFO",
    )
    for status in (301, 302, 303, 307, 308):
        for target in targets:
            yield redirect(target, status)
    inner = redirect("http://169.254.169.254/")
    yield from (redirect(inner), redirect(redirect(inner)), redirect(f"{redirect(inner)}#"), redirect("/itself"))
    yield from (redirect("http://rebinds-0.example:22/"), redirect("s3://bucket/key"), redirect("http:169.254.169.254"))
    yield from (redirect("http:///169.254.169.254/"), redirect("\\\\169.254.169.254\\"), redirect("/\\169.254.169.254/"))
    yield from (
        redirect("http://169.254.169.254\t/"),
        redirect("http://mixed-0.example/"),
        redirect("http://\u2460\u2461\u2466.1/"),
    )
    yield redirect("http://good.example/", 302).replace("http:", "https:", 1)  # from https to http


def redirect(target: str, status: int = 302) -> str:
    """The URL of a server that redirects to another."""
    return f"http://good.example/redirect/{status}?{quote(target, safe='')}"


_CONFUSING = (
    *(
        "http://good.example#@169.254.169.254/",
        "http://good.example\\@169.254.169.254/",
        "http://169.254.169.254\\@good.example/",
    ),
    *(
        "http://good.example/@169.254.169.254/",
        "http://good.example?@169.254.169.254/",
        "http://169.254.169.254#@good.example/",
    ),
    *(
        "http://good.example@169.254.169.254/",
        "http://good.example:80@169.254.169.254/",
        "http://good.example%40169.254.169.254/",
    ),
    *("http://good.example:80#@169.254.169.254:80/", "http://good.example:@169.254.169.254/", "http://@169.254.169.254/"),
    *("http:169.254.169.254", "http:/169.254.169.254/", "http:///169.254.169.254/", "http:////169.254.169.254/"),
    *("http:\\\\169.254.169.254\\", "http:/\\169.254.169.254/", "http://\t169.254.169.254/", "http://169.254.\n169.254/"),
    *("ht\ntp://169.254.169.254/", "http://169.254.169.254\r\nHost: good.example/", "http://169.254.169.254 .good.example/"),
    *("http://169.254.169.254\x00.good.example/", "http://169.254.169.254%00.good.example/", "http://169.254.169.254%20/"),
    *("http://good.example /", " http://169.254.169.254/", "http://[::1]@good.example/", "http://good.example[::1]/"),
    *(
        "http://[::ffff:169.254.169.254",
        "http://[fe80::1%25lo]/",
        "http://[fe80::1%lo]/",
        "http://[::1%25]/",
        "http://[::1].example/",
    ),
    *(
        "http://[169.254.169.254]/",
        "http://[v1.fe]/",
        "http://[]/",
        "http://[0:0:0:0:0:ffff:a9fe:a9fe]/",
        "http://::1/",
        "http://a:b:c/",
    ),
    *(
        "http://..169.254.169.254/",
        "http://.169.254.169.254/",
        "http://169..254.169.254/",
        "http://-/",
        "http://./",
        "http:///",
    ),
    *(
        "http://good.example:/",
        "http://good.example:080/",
        "http://good.example:+80/",
        "http://good.example: 80/",
        "http://:80/",
    ),
    *("http://localhost/", "http://LOCALHOST/", "http://localhost./", "http://localhost.localdomain/", "http://ip6-localhost/"),
    *("http://169.254.169.254;good.example/", "http://169.254.169.254,good.example/", "http://good.example&@169.254.169.254/"),
    *("http://good.example;@169.254.169.254/", "http://169.254.169.254.nip.example/", "http://xn--a/", "http://_metadata/"),
)
_LOOK_ALIKES = (
    *(
        "http://\uff11\uff16\uff19.\uff12\uff15\uff14.\uff11\uff16\uff19.\uff12\uff15\uff14/",
        "http://169\u3002254\u3002169\u3002254/",
    ),
    *(
        "http://169\uff0e254\uff0e169\uff0e254/",
        "http://169\uff61254\uff61169\uff61254/",
        "http://\u2460\u2465\u2468.254.169.254/",
    ),
    *(
        "http://\u0661\u0662\u0667.0.0.1/",
        "http://127\u00ad.0.0.1/",
        "http://127.0.0\u200b.1/",
        "http://\u24db\u24de\u24d2\u24d0\u24db.example/",
    ),
    *(
        "http://127.0.0.1\u2025/",
        "http://loc\u0430lhost/",
        "http://\u202e127.0.0.1/",
        "http://b\u00fccher.example/",
        "http://\ud800/",
    ),
    *("http://%31%36%39.254.169.254/", "http://169%2e254%2e169%2e254/", "http://%5b::1%5d/", "http://good\u2044.example/"),
    *(
        "http://good.example\uff0f@169.254.169.254/",
        "http://good.example\uff03@169.254.169.254/",
        "http\uff1a//169.254.169.254/",
    ),
)
_SCHEMES = (
    *(
        "file:///etc/passwd",
        "file://169.254.169.254/etc/passwd",
        "gopher://127.0.0.1:6379/_INFO",
        "ftp://127.0.0.1/a",
        "ldap://127.0.0.1/",
    ),
    *(
        "dict://127.0.0.1:11211/stat",
        "data:image/png;base64,iVBORw0KGgo=",
        "jar:http://127.0.0.1!/",
        "javascript:alert(1)",
        "netdoc:///etc",
    ),
    *(
        "unix:/run/docker.sock",
        "http+unix://%2frun%2fdocker.sock/",
        "ws://127.0.0.1/",
        "//169.254.169.254/",
        "169.254.169.254",
        "",
    ),
    *(
        "url:http://169.254.169.254/",
        "hTtPs+http://169.254.169.254/",
        "http",
        "http:",
        "http//169.254.169.254/",
        "view-source:http://127.0.0.1/",
    ),
)
_PORTS = (
    *(f"http://good.example:{port}/" for port in (1, 21, 22, 25, 8080, 6379, 9200, 11211, 65_535)),
    *(
        f"http://good.example:{port}/"
        for port in (0, 65_536, 65_616, 99_999, 4_294_967_376, "-80", "8 0", "0x50", "\u0668\u0660", "http")
    ),
    *("http://127.0.0.1:8080/models", "http://169.254.169.254:8080/", "http://[::1]:443/", "https://169.254.170.2:443/"),
)
_USERS = (
    *(
        "http://user@good.example/",
        "http://user:password@good.example/",
        "http://:@good.example/",
        "http://good.example%2540@10.0.0.1/",
    ),
    *(
        "http://a@b@169.254.169.254/",
        "http://169.254.169.254:80@good.example/",
        "https://user@169.254.169.254/",
        "http://%00@127.0.0.1/",
    ),
)
# What a server does, and not its address, is what these are about.
TRICKS = (
    *("endless-head", "continues", "gzip", "deflate", "transfer-gzip", "endless", "announced", "huge-length", "cut-off"),
    *("chunk-bytes", "chunk-huge", "chunk-negative", "chunk-cut-off", "trailers", "no-head", "garbage", "closes", "status/404"),
    *("status/500", "status/101", "redirect/302?", "itself", "long-line", "many-fields", "bad-status", "old-version"),
)
SLOW = ("drip", "drip-head", "drip-chunks", "silent")

GOOD_URLS = (
    *("http://good.example/photo.png", "https://good.example/photo.png", "http://www.good.example/a/b.png?c=d&e=%20#f"),
    *("http://other.example/", "HTTP://GOOD.EXAMPLE:80/photo.png", f"http://{GOOD}/photo.png", f"http://[{THIRD}]/photo.png"),
    *(
        "http://good.example/b\u00e4ume.png",
        "https://good.example:443/12@N00/a.png",
        "http://good.example/chunked",
        "http://other.example",
    ),
    *(redirect("/photo.png", 301), redirect("photo.png", 303), redirect("?a", 307), redirect("//other.example/photo.png", 308)),
    *(redirect("https://good.example/photo.png"), redirect(redirect("http://other.example/")), "http://good.example?a"),
    "http://good.example/unannounced",
)


def hostile() -> list[tuple[str, str]]:
    """All of them that end quickly, with their families."""
    families = {
        "literal": [f"http://{address}/latest/meta-data/" for address in INSIDE_4],
        "literal-6": [f"http://[{address}]/" for address in INSIDE_6],
        "spelling": [f"http://{text}/" for address in ("127.0.0.1", "169.254.169.254") for text in _spellings(address)],
        "name": [f"http://inside-{i}.example/" for i in range(len(INSIDE))],
        "mixed": [f"http://{name}/" for name in ZONE if name.startswith("mixed")],
        "rebinding": [f"http://{name}/redirect/302?{quote(f'http://{name}/')}" for name in REBINDING],
        "alias": [f"http://{name}/" for name in ZONE if name.startswith("alias")],
        "redirect": list(_redirects()),
        "confusing": list(_CONFUSING),
        "look-alike": list(_LOOK_ALIKES),
        "scheme": list(_SCHEMES),
        "port": list(_PORTS),
        "user": list(_USERS),
        "certificate": ["https://wrong.example/", f"https://{GOOD}/", "https://good.example:80/", "http://good.example:443/"],
        "nothing": [
            "http://nothing.example/",
            "http://never.example/",
            "http://good.example/" + "a" * 8_000,
            f"http://{'a' * 64}.example/",
        ],
        "trick": [f"http://good.example/{trick}" for trick in TRICKS],
    }
    return [(family, url) for family, urls in families.items() for url in urls]


# Read as the standards say, these name a good host: they may be answered.
MAY_BE_FETCHED = frozenset(
    (
        *(
            "http://good.example#@169.254.169.254/",
            "http://good.example/@169.254.169.254/",
            "http://good.example?@169.254.169.254/",
        ),
        "http://good.example:80#@169.254.169.254:80/",
    )
)
