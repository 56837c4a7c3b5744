"""A run that is resumed with other metrics: the model is the same, and each evaluation has the metrics of its time."""

import json
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.errors import ConfigError
from reviewgen.training import checkpoints
from tests.unit.test_resuming import cut_short, files_of, losses, options, start


@pytest.fixture(autouse=True)
def frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small models have checkpoints every few steps."""
    monkeypatch.setattr(checkpoints, "_SHARE", 1e9)


def with_metrics(*names: str) -> dict[str, Any]:
    return options(metrics=list(names), copy_tokens=200)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["distinct-1", "distinct-2"], ["self-repetition", "distinct-2"]),
        (["distinct-1"], []),
        ([], ["new-words"]),
    ],
)
def test_each_evaluation_has_the_metrics_of_its_time(before: list[str], after: list[str], tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", **with_metrics(*before))
    expected = losses(whole)
    whole.finish()
    first = losses(cut_short(tmp_path / "m", 20, **with_metrics(*before)))
    run = start(tmp_path / "m", resume=True, **with_metrics(*after))
    rest = losses(run)
    run.finish()
    assert first | rest == expected and min(rest) > 1
    assert files_of(tmp_path / "m") == files_of(tmp_path / "whole")
    record = json.loads((tmp_path / "m" / "training.json").read_text(encoding="utf-8"))
    assert record["metrics"].keys() == set(after)
    for at in record["evaluations"]:
        assert at.get("metrics", {}).keys() == set(before if at["step"] < min(rest) else after), at
    assert {at["step"] < min(rest) for at in record["evaluations"]} == {True, False}
    assert reviewgen.load(tmp_path / "m").generate_one(seed=1, max_new_tokens=5) is not None
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert all((name in card) == (name in after) for name in {*before, *after})
    for name in {*before, *after}:
        (curves,) = reviewgen.plot_training([tmp_path / "m"], tmp_path / f"{name}.png", metrics=[name])
        assert curves and (tmp_path / f"{name}.png").stat().st_size > 1000


def test_an_unknown_one_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    cut_short(tmp_path / "m", 12, **with_metrics("distinct-1"))
    with pytest.raises((ConfigError, reviewgen.ReviewgenError), match="distinct-9"):
        start(tmp_path / "m", resume=True, **with_metrics("distinct-9"))
    run = start(tmp_path / "m", resume=True, **with_metrics("distinct-1"))
    assert next(iter(run)).step > 1
    run._run_folder.checkpoints.close()
