"""What a process of ours says to the kernel about itself: its name, its parent, its orphans.

Python has no words for these (`prctl`), so they are called through ctypes. Linux only, as the container is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from collections.abc import Container, Sequence

from multigpu_inference import log

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 15, 36, 38
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_is_worker = False
_libc = ctypes.CDLL(None, use_errno=True)


def become(name: str, parent_pid: int, *, when_parent_dies: signal.Signals = signal.SIGKILL) -> None:
    """Take a name, in `ps` and in the log, end when the parent process does, and never get more rights than there are now.

    SIGINT is ignored from here on: Ctrl-C in a terminal reaches every process, and only the supervisor may answer it.

    Args:
        name: Such as `engine` or `replica-0`.
        parent_pid: The process that started this one; where it has gone already, this one ends at once.
        when_parent_dies: The signal that the kernel sends then.
    """
    log.set_source(name)
    _libc.prctl(_PR_SET_NAME, f"multigpu-{name}".encode()[:15], 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not _device_files_are_missing():
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, int(when_parent_dies), 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)


def _device_files_are_missing() -> bool:
    """Whether there is an NVIDIA driver whose device files a program with more rights has yet to make, as on a bare machine."""
    return os.path.exists("/proc/driver/nvidia/version") and not os.path.exists("/dev/nvidia-uvm")


def shut_off() -> None:
    """Keep other processes of the same user from reading this one's memory, environment and descriptors."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def start_as_child(arguments: Sequence[str]) -> socket.socket:
    """Begin as a process started by `child_process.spawn`: take the name, and the socket to who started this.

    The socket is this process's alone. Were it open in what user code forks or starts, nobody would see this one's end.

    Args:
        arguments: `FD PARENT_PID NAME`, as given on the command line.
    """
    global _is_worker
    become(arguments[2], int(arguments[1]))
    _is_worker = True
    _allow_many_files()
    sock = socket.socket(fileno=int(arguments[0]))
    sock.set_inheritable(False)
    os.register_at_fork(after_in_child=sock.close)
    return sock


def _allow_many_files() -> None:
    """Open as many files as the machine allows: each request in flight has two, in every process that works on it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep_small_memory(mapped_from: int = 1 << 20, kept: int = 8 << 20) -> None:
    """Have the C library keep the memory of small buffers, and give that of large ones back at once.

    By itself it does neither for long: a buffer of 256 KB is faulted in anew each time, until the first one of many megabytes
    has been freed; from then on those stay.

    Args:
        mapped_from: From how many bytes on a buffer is large.
        kept: How many bytes may be kept.
    """
    with contextlib.suppress(AttributeError):  # not every C library has it
        _libc.mallopt(_M_MMAP_THRESHOLD, mapped_from)
        _libc.mallopt(_M_TRIM_THRESHOLD, kept)


def is_worker() -> bool:
    """Whether this process is one that the container started."""
    return _is_worker


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent has ended, as PID 1 is; so that they can be found and reaped."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(own_children: Container[int] = ()) -> bool:
    """Collect ended children that nobody waits for.

    Args:
        own_children: Process ids that are left to whoever started them.

    Returns:
        Whether there are children left, living or not.
    """
    try:
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if ended.si_pid in own_children:
                break
            os.waitpid(ended.si_pid, 0)
    except ChildProcessError:
        return False
    return True


def ended_children() -> set[int]:
    """Children of this process that have ended and that nobody has collected yet."""
    import psutil  # only the supervisor asks; a notebook that imports this package need not have it

    ended = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                ended.add(child.pid)
    return ended


def collect(pid: int) -> None:
    """Collect an ended child."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def kill_group(pid: int) -> None:
    """End a process that leads a group, and all of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
