"""A fuzzer with planted faults, for the test of the frame: an exception, a crash, and a case that
takes too much memory.
"""

import ctypes

from tests.hostile.frame import Fuzzer


class Planted(Fuzzer):
    """Goes wrong in odd cases."""

    def run(self, seed: int) -> tuple[str, str]:
        """Raise, crash or grow in a case with an odd seed."""
        if seed == 1:
            raise RecursionError("planted")
        if seed == 3:
            ctypes.string_at(0)
        kept = [b"x" * 10**8 for _ in range(13)] if seed == 5 else []
        while kept:
            kept = [bytes(each) for each in kept]
        return f"case {seed}", ""


FUZZER = Planted()
