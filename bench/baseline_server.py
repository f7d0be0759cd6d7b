"""Multi-model-server with a handler that returns at once: what the workload `noop` is compared with.

    python -P -m bench.baseline_server RUN_DIR PARENT_PID WORKERS

Started by the container's own launcher, so with the same Java flags, number of workers and configuration; only the
handler is another.
"""

from __future__ import annotations

import sys

from multigpu_inference.frontend import model_server

if __name__ == "__main__":
    model_server._HANDLER = "bench.baseline_handler"
    sys.exit(model_server.main(sys.argv[1:]))
