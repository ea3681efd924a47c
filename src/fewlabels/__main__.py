"""``python -m fewlabels``: the same as the command ``fewlabels``."""

from __future__ import annotations

import sys

from fewlabels.cli import main

if __name__ == "__main__":
    sys.exit(main())
