"""A research loop: tries changes of settings one after another, keeps a change if the model is then
better, and writes a log.

    python loop.py reviews.csv --budget 5m --out research

Each change is tried on top of the best settings so far. While it is not known whether it is better,
both models are trained once more, from a further seed, up to three times. Start the same command
again to continue after an interrupt, or after you have added changes at the end of the list.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import reviewgen
from reviewgen.evaluation.differences import SeedSpread, pool_spreads

PRESET = "gru-char"
START: dict[str, Any] = {"model.hidden_size": 96}
# A person or an agent adds changes at the end.
CHANGES: list[dict[str, Any]] = [
    {"model.ngrams": 1},
    {"training.batch_size": 16},
    {"training.learning_rate": 0.012},
    {"model.embedding_size": 48},
    {"model.hidden_size": 160},
    {"training.learning_rate": 0.02},
]
MAX_SEEDS = 3
Compare = Callable[[dict[str, dict[str, Any]], int], reviewgen.Comparison]


def research(changes: Sequence[dict[str, Any]], compare: Compare, log: Path) -> dict[str, Any]:
    """Try the changes that have no line in the log yet; return the best settings.

    Args:
        changes: Settings by dotted name, as in {"model.layers": 2}.
        compare: Trains and compares models: given their settings by name, the base first, and the
            number of seeds.
        log: A file with a JSON line for each trial.
    """
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    trials = [json.loads(line) for line in lines]
    for number in range(len(trials) + 1, len(changes) + 1):
        kept = [trial for trial in trials if trial["kept"]]
        base = kept[-1] if kept else {"name": "start", "settings": START}
        trial = {"name": f"trial-{number}", "change": changes[number - 1]}
        trial["settings"] = base["settings"] | trial["change"]
        trial |= try_change(base, trial, find_spread(trials), compare)
        trials.append(trial)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(trial) + "\n")
        print(json.dumps(trial))
    kept = [trial for trial in trials if trial["kept"]]
    return kept[-1]["settings"] if kept else START


def try_change(
    base: dict[str, Any], trial: dict[str, Any], spread: SeedSpread | None, compare: Compare
) -> dict[str, Any]:
    """Compare a trial with the base, from one seed and then from more, until it is known whether it
    is better. Return the results.
    """
    models = {each["name"]: each["settings"] for each in (base, trial)}
    better = None
    for seeds in range(1, MAX_SEEDS + 1):
        comparison = compare(models, seeds)
        if comparison.is_interrupted:
            raise KeyboardInterrupt
        better = comparison.is_better(trial["name"], spread)
        failed = comparison.rows[-1].failed
        if better is not None or failed:
            break
    base_row, row = comparison.rows
    return {
        "base": base["name"],
        "base_bits": base_row.bits_per_character,
        "bits": row.bits_per_character,
        "seeds": seeds,
        "seed_spread": row.spread,
        "better": "unknown" if better is None else better,
        "kept": better is True,
        "note": failed or comparison.describe_unequal(),
    }


def find_spread(trials: Sequence[dict[str, Any]]) -> SeedSpread | None:
    """Pool the spreads over seeds of all trials so far. So later trials need fewer seeds."""
    known = [trial for trial in trials if trial["seed_spread"]]
    return pool_spreads([SeedSpread(trial["seed_spread"], trial["seeds"] - 1) for trial in known])


def main() -> None:
    """Run the loop on a corpus."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("data", help="the reviews, as for reviewgen train")
    parser.add_argument("--out", type=Path, default=Path("research"), help="models and log.jsonl")
    parser.add_argument("--budget", default="5m", help="time of each training")
    parser.add_argument("--steps", type=int, help="steps of each training, instead of a budget")
    options = parser.parse_args()
    length = {"steps": options.steps} if options.steps else {"budget": options.budget}

    def compare(models: dict[str, dict[str, Any]], seeds: int) -> reviewgen.Comparison:
        """Train two models, except those that were trained in earlier trials."""
        own: dict[str, dict[str, dict[str, Any]]] = {}
        for name, settings in models.items():
            own[name] = {"model": {}, "tokenizer": {}, "training": {}}
            for setting, value in settings.items():
                group, _, field = setting.partition(".")
                own[name][group][field] = value
        presets = dict.fromkeys(models, PRESET)
        folder = options.out / "trials"
        return reviewgen.compare(
            presets, options.data, seeds=seeds, row_settings=own, out=folder, resume=True, **length
        )

    options.out.mkdir(parents=True, exist_ok=True)
    try:
        print("best:", research(CHANGES, compare, options.out / "log.jsonl"))
    except KeyboardInterrupt:
        print("Interrupted: the same command continues.")


if __name__ == "__main__":
    main()
