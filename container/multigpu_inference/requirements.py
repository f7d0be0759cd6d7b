"""`code/requirements.txt`: installed once, before the engine starts, as the stock toolkit does before its server."""

from __future__ import annotations

import asyncio
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from multigpu_inference import credentials, log, process
from multigpu_inference.errors import StartupError


async def install_requirements(requirements: Path, run_dir: Path, timeout_s: float) -> None:
    """Install a model's requirements beside the container's own packages, or in front where those cannot be written to.

    Args:
        requirements: The model's `code/requirements.txt`; nothing is done where all that it lists is there.
        run_dir: Where packages go that cannot be installed into the environment.
        timeout_s: How long pip may take.

    Raises:
        StartupError: where pip fails, with its last line, or takes too long.
    """
    if not requirements.is_file() or _are_there(requirements.read_text(errors="replace")):
        return
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q", "-r", str(requirements)]
    if not os.access(sys.prefix, os.W_OK):
        target = run_dir / "site-packages"
        command += ["--target", str(target)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
    log.event("installing_requirements", file=str(requirements))
    pip = await asyncio.create_subprocess_exec(
        *command,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=credentials.withheld(os.environ),  # packages run code of theirs when they are built
        umask=0o022,  # for all users to read, whoever installs
    )
    try:
        async with asyncio.timeout(timeout_s):
            _, errors = await pip.communicate()
    except BaseException as error:
        process.kill_group(pip.pid)  # with what it started to build a package
        await pip.wait()
        if isinstance(error, TimeoutError):
            raise StartupError(f"code/requirements.txt was not installed within {timeout_s:g} s") from None
        raise
    if pip.returncode != 0:
        lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()] or ["no output"]
        raise StartupError(f"code/requirements.txt cannot be installed: {lines[-1]}")


def _are_there(text: str) -> bool:
    """Whether all that is listed is installed already; False also for what cannot be told without pip (options, URLs)."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return all(_is_there(line) for line in lines if line)


def _is_there(line: str) -> bool:
    try:
        requirement = Requirement(line)
        if requirement.url or requirement.extras:
            return False
        if requirement.marker is not None and not requirement.marker.evaluate():
            return True
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except (InvalidRequirement, PackageNotFoundError):
        return False
