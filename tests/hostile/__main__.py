"""The long run: ``python -m tests.hostile --minutes 30``. Exit status 1 if a case failed; each
failure says how to repeat it.
"""

import argparse
import random
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.hostile.frame import FUZZERS, fuzz


def main() -> int:
    """Run the fuzzers, two at a time, and print what failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        default=30,
        help="shared by the fuzzers in equal parts; 30 by default",
    )
    parser.add_argument("--only", action="append", choices=FUZZERS, help="repeatable")
    parser.add_argument(
        "--cases", type=int, help="this many cases of each fuzzer, instead of a time"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=random.randrange(10**9),
        help="of the first case; random by default",
    )
    options = parser.parse_args()
    names = options.only or FUZZERS
    seconds = (
        float("inf") if options.cases else options.minutes * 60 * min(2, len(names)) / len(names)
    )
    failed = 0
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda each: fuzz(each, options.seed, options.cases, seconds), names)
        for name, (tried, failures) in zip(names, runs, strict=True):
            print(f"{name}: {tried:,} cases, {len(failures)} failed", flush=True)
            for each in failures:
                print(
                    f"\n  python -m tests.hostile --only {name} --seed {each.seed} --cases 1\n "
                    f" {each.case!a}"
                )
                print(
                    each.detail.encode("unicode_escape").decode("ascii").replace("\\n", "\n  | "),
                    flush=True,
                )
            failed += len(failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
