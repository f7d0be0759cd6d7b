"""Finds the Chromium that `make test-page` drives, and says how it is started."""

from __future__ import annotations

import os
import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome")
# Root may not use the sandbox, a container has little shared memory, and nothing is to be asked of the network.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--in-process-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


def find_chromium() -> str | None:
    """`CHROMIUM`, or one that is on PATH; None where there is none."""
    names = (os.environ["CHROMIUM"],) if os.environ.get("CHROMIUM") else _NAMES
    return next((found for name in names if (found := shutil.which(name))), None)
