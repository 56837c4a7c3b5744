"""A few cases of each fuzzer, with fixed seeds; ``make fuzz`` runs them for as long as one likes."""

import pytest

from tests.hostile.driver import fuzz, modules

CASES = {"folders": 40, "kills": 2, "hub": 12, "command_lines": 10, "calls": 100, "requests": 50, "stores": 20, "working": 20}
SECONDS = 2.0  # for each fuzzer, however busy the machine is
CASE_SECONDS = 90.0  # beside other processes; the long run has the real limit


@pytest.mark.parametrize("name", modules())
def test_no_case_fails(name):
    summary = fuzz(name, seed=0, cases=CASES.get(name, 5), seconds=SECONDS, case_seconds=CASE_SECONDS)
    assert summary.tried
    assert not summary.failures, "\n".join(
        f"--only {name} --seed {one.seed}: {one.outcome.case}\n{one.outcome.detail}" for one in summary.failures
    )
