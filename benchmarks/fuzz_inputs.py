"""Fuzz the inputs of other people: no result may be wrong without a warning.

    python benchmarks/fuzz_inputs.py --draws 5000 [--seed 0]    all parts
    python benchmarks/fuzz_inputs.py --part tables              tables of images (benchmarks/fuzz_tables.py)
    python benchmarks/fuzz_inputs.py --part members             predictions and labels (benchmarks/fuzz_members.py)

Each result equals the reference, or is refused, or carries a warning that names the cause.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_members
import fuzz_tables

# Part → (number of draws, first seed) → (count of each verdict, descriptions of what is wrong).
PARTS: dict[str, Callable[[int, int], tuple[Counter[str], list[str]]]] = {
    "tables": fuzz_tables.run,
    "members": fuzz_members.run_draws,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts of each part, and what is wrong; return 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["all", *PARTS], default="all")
    parser.add_argument("--draws", type=int, default=2000, help="of each part")
    parser.add_argument("--seed", type=int, default=0, help="of the first draw")
    given = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    failed = False
    for part in PARTS if given.part == "all" else [given.part]:
        start = time.monotonic()
        counts, wrong = PARTS[part](given.draws, given.seed)
        failed |= bool(wrong)
        print("".join(f"{line}\n" for line in wrong[:20]), end="")
        listed = ", ".join(f"{verdict} {count:,}" for verdict, count in sorted(counts.items()))
        print(f"{part}: {given.draws:,} draws from seed {given.seed}: {listed}; {time.monotonic() - start:.0f} s")
    logging.disable(logging.NOTSET)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
