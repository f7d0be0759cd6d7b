"""Whom the container's processes run as where it is started as root: one ordinary user, who owns the run folder.

    supervisor (root) ──► a child of that user looks whether it can read all that is needed ──► engine, front end, workers

The supervisor alone stays root: it installs the script's requirements, and ends the others. A start never fails for this: where
the user cannot read the model, say, the others run as root too, and a line in the log says why and what to change.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import importlib.util
import json
import os
import pwd
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from multigpu_inference import log
from multigpu_inference.config import MMS, Settings
from multigpu_inference.credentials import withheld
from multigpu_inference.errors import SettingsError

DEFAULT_USER, ROOT = "multigpu", "root"
_LOOK_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class User:
    """Whom processes run as.

    Attributes:
        name: As the machine knows it.
        uid: Its number.
        gid: Its group's.
        groups: All of its groups.
        environ: Variables that it needs, beside those of the container.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a user can and cannot do, as a process of that user found.

    Attributes:
        obstacle: What stops it from serving, in words; None: nothing.
        unreadable: What of the model it cannot read; None: nothing.
        has_home: Whether it can write to `HOME`.
        has_temporary: Whether there is a folder for temporary files.
    """

    obstacle: str | None = None
    unreadable: str | None = None
    has_home: bool = True
    has_temporary: bool = True


async def unprivileged_user(settings: Settings, run_dir: Path) -> User | None:
    """The user that processes are to run as, to whom the run folder has been handed over; None: as this one does.

    Raises:
        SettingsError: where `MULTIGPU_USER` names a user that does not exist.
    """
    named = settings.security.user
    user = _lookup(named or DEFAULT_USER)
    if user is None and named is not None:
        raise SettingsError(f"MULTIGPU_USER={named!r}: there is no such user; allowed are names of users, and {ROOT}")
    if os.geteuid() != 0 or (user is not None and user.uid == 0):
        return None
    if user is None:
        _say_why(f"there is no user {DEFAULT_USER}")
        return None
    try:
        _own(run_dir, user)
        seen = await _look(user, settings, run_dir)
        if seen.unreadable is None and seen.obstacle is None:
            user = _at_home(user, seen, run_dir)
            _let_open_the_log(user)
            log.event("runs_as", user=user.name, uid=user.uid)
            return user
    except OSError as error:  # a container without the right to change users, for one
        seen = Seen(error.strerror)
    with contextlib.suppress(OSError):
        os.chown(run_dir, os.geteuid(), os.getegid())
    if seen.unreadable is not None:
        log.event(
            "model_folder_not_readable",
            path=seen.unreadable,
            user=user.name,
            message=f"everything runs as root: let the user {user.name} read the model (chmod -R a+rX), or name another user "
            "by MULTIGPU_USER; MULTIGPU_USER=root runs as root without this line",
        )
        return None
    _say_why(f"the user {user.name} cannot serve: {seen.obstacle}")
    return None


def _say_why(because: str) -> None:
    log.event("runs_as_root", because=because)


def _lookup(name: str) -> User | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return User(name, entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(name, entry.pw_gid)))


def _own(path: Path, user: User) -> None:
    os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _at_home(user: User, seen: Seen, run_dir: Path) -> User:
    """The user with a home and a temporary folder, of the run folder where it has none: libraries keep their caches there."""
    environ = {}
    for variable, has_one in (("HOME", seen.has_home), ("TMPDIR", seen.has_temporary)):
        if not has_one:
            folder = run_dir / variable.lower()
            folder.mkdir(mode=0o700)
            _own(folder, user)
            environ[variable] = str(folder)
    return replace(user, environ=environ)


def _let_open_the_log(user: User) -> None:
    """Let the user open `/dev/stdout` by its name, as loggers do: Linux asks who owns the pipe behind it."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.fchown(descriptor, user.uid, -1)


async def _look(user: User, settings: Settings, run_dir: Path) -> Seen:
    """Have a process of that user look. That it starts shows that it can read the interpreter and this package."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", __name__,
        str(settings.model.model_dir), str(run_dir), settings.front_end.kind, str(settings.front_end.port),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=withheld(os.environ),
        user=user.uid,
        group=user.gid,
        extra_groups=user.groups,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_LOOK_LIMIT_S):
            said, errors = await child.communicate()
    except TimeoutError:
        return Seen("looking at the model folder takes too long")
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        return Seen(f"Python does not start for it: {last[0] if last else f'exit code {child.returncode}'}")
    return seen_of(said)


def seen_of(said: bytes) -> Seen:
    """What the child that looks has said, in its last line: packages that start with every Python may print before it."""
    try:
        return Seen(**json.loads(said.splitlines()[-1]))
    except (ValueError, TypeError, IndexError):
        return Seen("what Python prints for it cannot be read")


def look(model_dir: Path, run_dir: Path, kind: str, port: int, environ: Mapping[str, str]) -> Seen:
    """What this process's user can and cannot do."""
    home = environ.get("HOME", "")
    return Seen(
        obstacle=_obstacle(run_dir, kind, port, environ),
        unreadable=unreadable(model_dir),
        has_home=bool(home) and os.access(home, os.W_OK | os.X_OK),
        has_temporary=_has_temporary(environ),
    )


def unreadable(folder: Path) -> str | None:
    """The first file or folder within a folder, or it itself, that cannot be read; None: all can, or it does not exist."""
    refused = list[str]()
    if not _may(folder, os.R_OK | os.X_OK):
        return str(folder)
    for place, folders, files in os.walk(folder, onerror=lambda error: refused.append(str(error.filename))):
        names = [(name, os.R_OK | os.X_OK) for name in folders] + [(name, os.R_OK) for name in files]
        refused.extend(path for name, how in names if not _may(path := os.path.join(place, name), how))
        if refused:
            return refused[0]
    return None


def _may(path: str | Path, how: int) -> bool:
    """Whether it can be used so; true for what is not there, such as the end of a broken link."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return os.access(path, how)


def _obstacle(run_dir: Path, kind: str, port: int, environ: Mapping[str, str]) -> str | None:
    for path, how in (
        (run_dir, os.R_OK | os.W_OK | os.X_OK),
        (Path.cwd(), os.X_OK),
        *((Path(device), os.R_OK | os.W_OK) for device in glob.glob("/dev/nvidia*") if not os.path.isdir(device)),
        *((Path(spec.origin), os.R_OK) for spec in [importlib.util.find_spec("torch")] if spec and spec.origin),
    ):
        if not os.access(path, how):
            return f"it cannot use {path}"
    if kind == MMS and not _has_java(environ):
        return "it cannot start Java"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except PermissionError:
            return f"it may not listen on port {port}"
        except OSError:
            pass  # taken: that is told by whoever needs it
    return None


def _has_java(environ: Mapping[str, str]) -> bool:
    home = environ.get("JAVA_HOME")
    return os.access(f"{home}/bin/java", os.X_OK) if home else shutil.which("java") is not None


def _has_temporary(environ: Mapping[str, str]) -> bool:
    try:
        found = tempfile.gettempdir()
    except FileNotFoundError:
        return False
    return "TMPDIR" not in environ or Path(found).absolute() == Path(environ["TMPDIR"]).absolute()


if __name__ == "__main__":
    model_dir, run_dir, kind, port = sys.argv[1:]
    # On a line of its own, whatever was printed before.
    sys.stdout.write("\n")
    json.dump(asdict(look(Path(model_dir), Path(run_dir), kind, int(port), os.environ)), sys.stdout)
