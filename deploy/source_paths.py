"""Puts the repository's other folders on the path: `deploy/` is run as scripts, beside a container that is not installed.

Imported for that alone, before anything of them:

- `container/`: its settings and placement, so that what it would refuse at its start is refused before anything is paid for;
  its list of CloudWatch metrics. None of these imports torch.
- `demo/`: packing a model.tar.gz.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

for _folder in ("container", "demo"):
    if str(ROOT / _folder) not in sys.path:
        # At the end: the modules of this folder and what is installed go first.
        sys.path.append(str(ROOT / _folder))
