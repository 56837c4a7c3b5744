"""The learning rate of each step, when evaluations are due, and how much of a run they may take."""

import math
import time
from typing import Any

import numpy as np
import pytest

from reviewgen.evaluation import Document
from reviewgen.training import TrainingConfig, evaluator
from reviewgen.training.evaluator import MAX_SHARE, Evaluator
from reviewgen.training.schedule import Schedule
from tests.support.fakes import LETTERS, QueueModel


def follow(schedule: Schedule, total: int, evaluations: int, bits: Any, patience: int = 3) -> tuple[list[float], list[int]]:
    """Return the learning rates of a run's steps and the steps of its evaluations; ``bits`` is the held-out figure of a step."""
    rates, evaluated, done, best, without_gain = [], [], 0, math.inf, 0
    for step in range(1, total + 1):
        rates.append(schedule.learning_rate(step - 1))
        schedule.progress = step / total
        if not (schedule.is_over(step) or schedule.is_evaluation_due(done, evaluations, step)):
            continue
        done = schedule.evaluations_due(evaluations, step)
        evaluated.append(step)
        if bits(step) < best:
            best, without_gain = bits(step), 0
            schedule.mark_best(step)
        else:
            without_gain += 1
        if schedule.is_over(step):
            break
        if without_gain >= patience and not schedule.is_annealing:
            schedule.anneal(step)
            done = evaluations
    return rates, evaluated


def test_a_run_that_gains_to_the_end_decays_in_a_straight_line() -> None:
    rates, evaluated = follow(Schedule(0.1, 0.1), 1000, 10, lambda step: -step)
    assert len(rates) == 1000 and max(rates) == pytest.approx(0.1)
    assert rates[0] == pytest.approx(0.004)
    assert np.diff(rates[101:]) == pytest.approx(-0.1 / 900, rel=1e-6)
    assert evaluated == [10, 40, 90, 160, 250, 360, 490, 640, 810, 1000]


def test_a_run_that_stops_gaining_goes_back_to_its_best_rate_and_decays_to_zero() -> None:
    schedule = Schedule(0.1, 0.0)
    rates, evaluated = follow(schedule, 1000, 20, lambda step: abs(step - 160))
    annealing = schedule.annealing
    assert annealing is not None and schedule.best_step == 160
    assert annealing.start == 303 and annealing.steps == 80  # three evaluations later; half of the steps to the best
    assert len(rates) == 383 == evaluated[-1]
    assert rates[303] == pytest.approx(0.1 * (1 - 0.160), rel=1e-2)  # as at the best step
    assert rates[-1] == pytest.approx(rates[303] / 80, rel=1e-6)
    assert [step for step in evaluated if step > 303] == [323, 343, 363, 383]


def test_an_annealing_ends_with_the_run() -> None:
    schedule = Schedule(0.1, 0.0)
    rates, _ = follow(schedule, 1000, 10, lambda step: abs(step - 490), patience=2)
    assert schedule.annealing is not None and schedule.annealing.start == 810
    assert len(rates) == 1000 and rates[-1] < 1e-3


def test_a_schedule_goes_on_from_its_state() -> None:
    schedule = Schedule(0.1, 0.05)
    schedule.progress = 0.4
    schedule.mark_best(40)
    schedule.progress = 0.6
    schedule.anneal(60)
    again = Schedule(0.1, 0.05)
    again.load_state_dict(schedule.state_dict())
    again.progress = 0.6
    assert [again.learning_rate(step) for step in range(60, 81)] == [schedule.learning_rate(step) for step in range(60, 81)]
    older = Schedule(0.1, 0.05)
    older.load_state_dict({})
    assert not older.is_annealing


def documents(count: int) -> list[Document]:
    return [(np.array([LETTERS.bos_id, *LETTERS.encode("bad cafe" * 10), LETTERS.eos_id]), 80) for _ in range(count)]


def test_evaluations_keep_within_their_share_of_a_time() -> None:
    """One a second long: the first after 1 / 0.06 s, each next one as much later."""
    found = Evaluator(LETTERS, documents(10), TrainingConfig(evaluations=10))
    found.limit_to_share_of_seconds(1000.0)
    assert found.seconds_each == pytest.approx(1000 * MAX_SHARE / 10)
    found.seconds_each, times = 1.0, []
    for second in range(1, 101):
        if found.has_time(second):
            times.append(second)
            found.seconds = 1.0
            found.total_seconds += 1.0
    assert times == [math.ceil(number / MAX_SHARE) for number in range(1, 7)]


def test_what_is_done_once_does_not_count_as_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the first use, where measuring the rates compiles."""
    monkeypatch.setattr(evaluator, "measure_rate", lambda *_: time.sleep(0.5) or 1e9)
    found = Evaluator(LETTERS, documents(2), TrainingConfig(evaluations=10))
    found.limit_to_share_of_seconds(20.0)
    found.evaluate(QueueModel(LETTERS.encode("bad cafe"), LETTERS))
    assert found.seconds < 0.4 < 0.5 <= found.setup_seconds <= found.total_seconds - found.seconds
    assert found.has_time(2 * found.seconds / MAX_SHARE + 0.1)


def test_a_slow_model_is_evaluated_on_fewer_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for rate in (10.0, 1000.0, 1e9):
        monkeypatch.setattr(evaluator, "measure_rate", lambda *_, rate=rate: rate)
        found = Evaluator(LETTERS, documents(40), TrainingConfig(evaluations=10))
        found.limit_to_share_of_seconds(100.0)
        found.evaluate(QueueModel(LETTERS.encode("bad cafe"), LETTERS))
        counts.append(len(found.documents))
    assert counts == [1, 4, 40]  # 0.3 s for scoring: 3, 300 and many of 3,280 tokens


def test_a_short_run_of_steps_is_evaluated_on_fewer_tokens() -> None:
    counts = []
    for tokens in (0, 500_000, 10_000_000):
        found = Evaluator(LETTERS, documents(100), TrainingConfig(evaluations=10))
        found.limit_to_share_of_tokens(tokens)
        counts.append((len(found.documents), found.copy_texts))
    assert counts == [(24, 1), (55, 1), (100, 1)]  # no index, so one text is generated


def test_the_limits_of_an_evaluator_go_on() -> None:
    found = Evaluator(LETTERS, documents(100), TrainingConfig(evaluations=10))
    found.limit_to_share_of_tokens(500_000)
    again = Evaluator(LETTERS, documents(100), TrainingConfig(evaluations=10))
    again.load_state_dict(found.state_dict())
    assert len(again.documents) == len(found.documents)
    assert (again.copy_texts, again.total_seconds) == (found.copy_texts, found.total_seconds)
