"""Containers that can change to another user: an interpreter, folders and packages that everybody may read.

The environment of the tests may stand on an interpreter in somebody's home; then the system's own, of the same version, runs
the same packages.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

from integration.endpoint import ROOT, Endpoint

USER = "nobody"  # every machine has it


class SharedEndpoint(Endpoint):
    """A container started by root, whose folders another user may enter."""

    def __init__(self, **environment: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="shared-"))
        packages = [sysconfig.get_path("purelib"), str(ROOT / "container")]
        commands = folder / "bin"
        super().__init__(
            folder,
            **{
                "MULTIGPU_USER": USER,
                "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join(packages),
                **environment,
            },
        )
        self.command[0] = interpreter()
        for place in (folder, self.temporary):
            place.chmod(0o755)
        commands.mkdir()
        script = commands / "multi-model-server"
        script.write_text(f"#!{self.command[0]}\nfrom mms.model_server import start\nstart()\n")
        script.chmod(0o755)

    def clean_up(self) -> None:
        super().clean_up()
        shutil.rmtree(self.folder, ignore_errors=True)


def interpreter() -> str:
    """A Python of this version that another user can run; the test is skipped where there is none, or no right to change."""
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of another user")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    uid = pwd.getpwnam(USER).pw_uid
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        try:
            subprocess.run([candidate, "-c", ""], user=uid, group=uid, extra_groups=[], cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    pytest.skip(f"there is no {version} here that {USER} may run")
