from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from multigpu_inference import process
from support import wait_until


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own: what is tried here cannot be taken back."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def output(script: str, *arguments: str) -> str:
    done = run(script, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_process_takes_its_name_in_ps() -> None:
    script = """
import os
from multigpu_inference import process
process.become("replica-0", os.getppid())
print(open("/proc/self/comm").read().strip())
"""
    assert output(script) == "multigpu-replic\n"


def test_a_process_takes_its_name_in_the_log() -> None:
    script = """
import os
from multigpu_inference import log, process
process.become("replica-0", os.getppid())
log.event("x")
"""
    assert '"source": "replica-0"' in output(script)


def test_ctrl_c_is_ignored() -> None:
    script = """
import os, signal
from multigpu_inference import process
process.become("x", os.getppid())
signal.raise_signal(signal.SIGINT)
print("still here")
"""
    assert output(script) == "still here\n"


def test_a_process_whose_parent_has_gone_ends_at_once() -> None:
    done = run("from multigpu_inference import process; process.become('x', 1 << 22); print('still here')")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_process_ends_with_its_parent() -> None:
    child = """
import os, signal, sys
from multigpu_inference import process
process.become("child", int(sys.argv[1]))
print(os.getpid(), flush=True)
signal.pause()
"""
    parent = f"""
import os, subprocess, sys
started = subprocess.Popen([sys.executable, "-c", {child!r}, str(os.getpid())], stdout=subprocess.PIPE, text=True)
print(started.stdout.readline().strip(), flush=True)
os._exit(0)
"""
    pid = int(output(parent))
    assert wait_until(lambda: has_ended(pid), 10)


def test_a_child_has_its_name_and_the_socket_to_its_parent() -> None:
    script = """
import os, socket
from multigpu_inference import log, process
from multigpu_inference.ipc import FrameSocket
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
print(process.is_worker())
sock = process.start_as_child([str(theirs.detach()), str(os.getppid()), "pool-7"])
FrameSocket(sock).send("hello")
print(process.is_worker(), log._source, FrameSocket(ours).receive())
"""
    assert output(script) == "False\nTrue pool-7 ('hello', [])\n"


def test_what_a_child_forks_does_not_hold_the_socket_to_its_parent() -> None:
    script = """
import os, socket, time
from multigpu_inference import process
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock = process.start_as_child([str(theirs.detach()), str(os.getppid()), "pool-7"])
if os.fork() == 0:
    time.sleep(30)
sock.close()
ours.settimeout(10)
print(ours.recv(1))
os.kill(0, 9)
"""
    done = subprocess.run(
        [sys.executable, "-u", "-c", script], capture_output=True, text=True, timeout=20, start_new_session=True, check=False
    )
    assert done.stdout == "b''\n"


def test_this_process_is_no_worker() -> None:
    assert not process.is_worker()


# A grandchild that is left behind and ends: `A` leads to `B` leads to `C`, and B ends first, or it would reap C itself.
ORPHAN = """
import os, subprocess, sys
from multigpu_inference import process
process.adopt_orphans()
middle = subprocess.run([sys.executable, "-c",
    "import subprocess; print(subprocess.Popen(['sleep', '0.5']).pid)"], stdout=subprocess.PIPE, text=True)
orphan = int(middle.stdout)
os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)  # ours now, and ended
"""


def test_an_orphan_is_reaped() -> None:
    script = f"{ORPHAN}\nprocess.reap_orphans(set())\nprint(os.path.exists(f'/proc/{{orphan}}'))"
    assert output(script) == "False\n"


def test_a_child_of_our_own_is_left_to_who_started_it() -> None:
    script = """
import os, subprocess
from multigpu_inference import process
child = subprocess.Popen(["sh", "-c", "exit 7"])
os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
process.reap_orphans({child.pid})
print(child.wait())
"""
    assert output(script) == "7\n"


def test_reaping_says_whether_children_are_left() -> None:
    script = """
import subprocess
from multigpu_inference import process
print(process.reap_orphans(set()))
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
print(process.reap_orphans(set()))
child.stdin.close()
child.wait()
print(process.reap_orphans(set()))
"""
    assert output(script) == "False\nTrue\nFalse\n"


def start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)


def test_a_group_ends_together() -> None:
    with start(["sh", "-c", "sleep 60 & echo $!; wait"]) as leader:
        assert leader.stdout is not None
        grandchild = int(leader.stdout.readline())
        process.kill_group(leader.pid)
        assert leader.wait(10) == -signal.SIGKILL
        assert wait_until(lambda: has_ended(grandchild), 10)


def test_a_group_that_has_ended_is_no_error() -> None:
    with start(["true"]) as leader:
        leader.wait(10)
    process.kill_group(leader.pid)
