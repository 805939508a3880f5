"""Fuzz the inputs of other people: no result may be wrong without a warning.

    python benchmarks/fuzz_inputs.py --part tables --draws 5000 [--seed 0]    tables of images (benchmarks/fuzz_tables.py)

Each result equals the reference, or is refused, or carries a warning that names the cause.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_tables

PARTS = {"tables": fuzz_tables.run}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="tables")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start = time.monotonic()
    counts, wrong = PARTS[given.part](given.draws, given.seed)
    print("\n".join(wrong[:20]))
    listed = ", ".join(f"{verdict} {count:,}" for verdict, count in sorted(counts.items()))
    print(f"{given.part}: {given.draws:,} draws from seed {given.seed}: {listed}; {time.monotonic() - start:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
