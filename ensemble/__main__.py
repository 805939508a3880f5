"""`python -m ensemble`: the command line, where the script `ensemble` is not on the path."""

import sys
from pathlib import Path

# Python puts the working folder first on its path. Unless the program itself lies there, nothing is imported from it.
if sys.path and Path(sys.path[0] or ".").resolve() not in Path(__file__).resolve().parents:
    del sys.path[0]

from ensemble.cli import main

if __name__ == "__main__":
    main()
