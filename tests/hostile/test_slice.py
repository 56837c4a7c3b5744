"""A few cases of each fuzzer, with fixed seeds; and the frame finds planted faults."""

import pytest

from tests.hostile.frame import FUZZERS, find_fault, fuzz

CASES = {"folders": 30, "kills": 2, "commands": 10, "calls": 60, "requests": 40}


@pytest.mark.fuzz
@pytest.mark.parametrize("name", FUZZERS)
def test_no_case_fails(name: str) -> None:
    tried, failures = fuzz(name, 0, CASES[name], seconds=20)
    assert tried and not failures, "\n".join(
        f"--only {name} --seed {each.seed}: {each.case}\n{each.detail}" for each in failures
    )


@pytest.mark.fuzz
def test_planted_faults_are_found() -> None:
    tried, failures = fuzz("planted", 0, 6)
    assert tried == 6 and [each.seed for each in failures] == [1, 3, 5]
    assert "RecursionError" in failures[0].detail and "process ended" in failures[1].detail


def test_a_refusal_is_one_short_sentence_of_our_own_errors() -> None:
    from reviewgen.errors import ConfigError

    assert find_fault(ConfigError("temperature must be at least 0; got -1.")) == ""
    long = type("Long", (ConfigError,), {"__str__": lambda _: "x" * 501})()
    assert (
        find_fault(long) and find_fault(ConfigError("")) and "KeyError" in find_fault(KeyError("a"))
    )
