"""The driver finds planted faults, and goes on with the next case."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.hostile.__main__ import main
from tests.hostile.driver import fuzz

ROOT = Path(__file__).parents[2]
PLANTED = "tests.hostile.planted"


def planted(name, **options):
    return fuzz(f"{PLANTED}:{name}", seed=10, cases=3, **options)


def the_failure(summary):
    """The one failure, of the case in the middle: the cases before and after it were tried and are clean."""
    assert (summary.tried, summary.verdicts["clean"], summary.verdicts["failed"]) == (3, 2, 1)
    (failure,) = summary.failures
    assert failure.seed == 11
    return failure


def test_a_fuzzer_without_faults_is_clean():
    summary = planted("CLEAN")
    assert (summary.tried, summary.verdicts["clean"], summary.failures) == (3, 3, [])


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("RAISES", "RecursionError: planted 11"),
        ("EXITS", "exit status 3"),
        ("CRASHES", "killed by SIGSEGV"),
        ("CRASHES", "in fault"),  # faulthandler's stack
    ],
)
def test_a_case_that_raises_or_ends_the_process_has_failed(name, detail):
    assert detail in the_failure(planted(name)).outcome.detail


def test_a_case_that_hangs_is_ended_and_says_where_it_was():
    failure = the_failure(planted("HANGS", case_seconds=2))
    assert "did not end in 2 s" in failure.outcome.detail
    assert "in fault" in failure.outcome.detail


@pytest.mark.parametrize("name", ["HANGS_WITH_A_CHILD", "HANGS_WITH_A_SESSION"])
def test_what_a_hanging_case_has_started_is_ended_with_it(name):
    the_failure(planted(name, case_seconds=2))
    words = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    assert not [one for one in words if f"planted-{os.getpid()}" in one]


@pytest.mark.parametrize("name", ["GROWS", "GROWS_FOR_EVER", "GROWS_IN_A_CHILD"])
def test_a_case_that_takes_too_much_memory_has_failed(name):
    failure = the_failure(planted(name, memory=200 << 20))
    assert "the limit is 210 MB" in failure.outcome.detail


def test_a_fuzzer_that_cannot_prepare_has_failed():
    summary = planted("CANNOT_PREPARE")
    assert (summary.tried, summary.verdicts["failed"]) == (1, 1)
    assert "planted in prepare" in summary.failures[0].outcome.detail


def test_the_time_limit_ends_a_run():
    assert 1 <= fuzz(f"{PLANTED}:CLEAN", seed=0, seconds=0.2).tried < 10**6


def test_a_failure_is_printed_with_the_command_that_repeats_it(capsys):
    assert main(["--only", f"{PLANTED}:RAISES", "--seed", "0", "--cases", "4"]) == 1
    printed = capsys.readouterr().out
    assert f"--only {PLANTED}:RAISES --seed 3 --cases 1" in printed
    assert "RecursionError: planted 3" in printed
    assert main(["--only", f"{PLANTED}:RAISES", "--seed", "3", "--cases", "1"]) == 1
    assert main(["--only", f"{PLANTED}:RAISES", "--seed", "2", "--cases", "1"]) == 0


def test_an_unknown_fuzzer_is_bad_usage(capsys):
    assert main(["--only", "folder"]) == 2
    assert "Unknown fuzzer 'folder'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["HANGS_WITH_A_CHILD", "HANGS_WITH_A_SESSION"])
def test_a_killed_driver_leaves_no_process(name):
    """Not even in the middle of a case, which has started another process."""
    script = f"from tests.hostile.driver import fuzz\nfuzz('{PLANTED}:{name}', seed=11, cases=1, case_seconds=600)"
    driver = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    try:
        wait_for(lambda: len(psutil.Process(driver.pid).children(recursive=True)) == 2)
        below = psutil.Process(driver.pid).children(recursive=True)
    finally:
        driver.kill()
        driver.wait()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not alive


def wait_for(holds):
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
