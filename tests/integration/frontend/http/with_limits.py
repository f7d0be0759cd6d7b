"""The HTTP front end's process with small limits, so that a test need not wait for the real ones.

Run as the server itself, with one more argument: JSON of constants by module and name.
"""

from __future__ import annotations

import importlib
import json
import sys

PACKAGE = "multigpu_inference.frontend.http"


def main() -> int:
    for path, value in json.loads(sys.argv.pop()).items():
        module, name = path.split(".")
        owner = importlib.import_module(f"{PACKAGE}.{module}")
        if not hasattr(owner, name):
            raise AttributeError(f"{module} has no {name}")
        setattr(owner, name, value)
    return importlib.import_module(f"{PACKAGE}.server").main()  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
