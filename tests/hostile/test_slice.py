"""A few cases of each fuzzer, with fixed seeds."""

import pytest

from tests.hostile.frame import FUZZERS, find_fault, fuzz

CASES = {"folders": 30, "kills": 2, "commands": 10, "calls": 60, "requests": 40}


@pytest.mark.fuzz
@pytest.mark.parametrize("name", FUZZERS)
def test_no_case_fails(name: str) -> None:
    tried, failures = fuzz(name, 0, CASES[name], seconds=20)
    assert tried and not failures, "\n".join(f"--only {name} --seed {each.seed}: {each.case}\n{each.detail}" for each in failures)


def test_a_refusal_is_one_short_sentence_of_our_own_errors() -> None:
    from reviewgen.errors import ConfigError

    assert find_fault(ConfigError("temperature must be at least 0; got -1.")) == ""
    long = type("Long", (ConfigError,), {"__str__": lambda _: "x" * 501})()
    assert find_fault(long) and find_fault(ConfigError("")) and "KeyError" in find_fault(KeyError("a"))
