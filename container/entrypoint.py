"""The image's entry point: SageMaker starts the container as `docker run IMAGE serve`."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command that the container was started with; its exit code."""
    if sys.argv[1:] != ["serve"]:
        print(f"usage: {sys.argv[0]} serve", file=sys.stderr)  # noqa: T201
        return 2
    # The kernel keeps from the first process of a container what it has no handler for, and `docker stop` would wait in vain.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    from multigpu_inference.supervisor import main as serve

    return serve()


if __name__ == "__main__":
    sys.exit(main())
