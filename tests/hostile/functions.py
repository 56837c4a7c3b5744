"""The public functions and methods, each with arguments that it accepts; test_functions.py compares them with the package."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import reviewgen
from reviewgen.export import export_html, export_onnx, export_transformers, push_with_space

__all__ = ["TEXTS", "TINY", "list_functions"]

TEXTS = [f"The {noun} was {kind} number {i}." for noun in ("food", "band") for kind in ("good", "bad") for i in range(12)]
TINY: dict[str, Any] = {"model": {"hidden_size": 8, "embedding_size": 4}, "training": {"batch_size": 4}}

Call: TypeAlias = tuple[Callable[..., Any], dict[str, Any]]
"""A function, and arguments that it accepts."""


def list_functions(models: Mapping[str, reviewgen.ReviewModel], folder: Path) -> dict[str, Call]:
    """Return all functions by name.

    Args:
        models: Models of two kinds, "ngram" and "gru", saved as ``n`` and ``g``.
        folder: The folder that they are saved in; a token store is prepared there.
    """
    store = reviewgen.prepare(TEXTS, preset="gru-char", out=folder / "store").folder
    return _functions(models, folder, store) | _methods(models) | _results(models, folder)


def _functions(models: Mapping[str, reviewgen.ReviewModel], folder: Path, store: Path) -> dict[str, Call]:
    n, g = models["ngram"], models["gru"]
    train = {"start": "ngram-char", "source": TEXTS, "steps": 1}
    table = {"model": n, "source": TEXTS, "out": "table"}
    return {
        "load": (reviewgen.load, {"source": folder / "n"}),
        "from_pretrained": (reviewgen.ReviewModel.from_pretrained, {"pretrained_model_name_or_path": folder / "n"}),
        "train": (reviewgen.train, train | {"progress": False}),
        "train gru": (reviewgen.train, train | {"start": "gru-char", "progress": False, **TINY}),
        "train from a store": (reviewgen.train, train | {"source": store, "progress": False}),
        "train further": (reviewgen.train, train | {"start": n, "progress": False}),
        "TrainingRun": (reviewgen.TrainingRun, train),
        "blend": (reviewgen.blend, {"models": [n, n], "weights": [1, 2]}),
        "prepare": (reviewgen.prepare, {"source": TEXTS, "preset": "gru-char", "out": "store"}),
        "prepare with conditions": (
            reviewgen.prepare,
            {"source": [{"text": text, "n": 1} for text in TEXTS], "preset": "gru-char", "out": "store", "conditions": ["n"]},
        ),
        "generate_dataset": (reviewgen.generate_dataset, {"model": n, "n": 4, "out": "table", "max_new_tokens": 5}),
        "generate_dataset unique": (
            reviewgen.generate_dataset,
            {"model": folder / "n", "n": 4, "out": "table", "columns": True, "unique": True, "format": "parquet"},
        ),
        "score_dataset": (reviewgen.score_dataset, table),
        "score_dataset file": (reviewgen.score_dataset, table | {"out": "table.parquet"}),
        "novelty_dataset": (reviewgen.novelty_dataset, table),
        "sweep": (
            reviewgen.sweep,
            {"preset": "ngram-char", "source": TEXTS, "setting": "model.order", "values": [2], "steps": 1},
        ),
        "plot_sweep": (reviewgen.plot_sweep, {"rows": [], "setting": "model.order", "preset": "x-char", "file": "a.svg"}),
        "tune": (reviewgen.tune, {"start": "ngram-char", "source": TEXTS, "trials": 1, "steps": 1}),
        "best_trial": (reviewgen.best_trial, {"trials": []}),
        "tune_sampling": (
            reviewgen.tune_sampling,
            {"model": n, "source": TEXTS, "texts": 20, "search": {"top_k": [5]}},
        ),
        "plot_training": (reviewgen.plot_training, {"sources": [folder / "g"], "file": "a.svg"}),
        "compare": (reviewgen.compare, {"models": [folder / "n"], "data": TEXTS, "progress": False}),
        "graph": (reviewgen.graph, {"source": "gru-char", "out": "g.svg"}),
        "explain": (reviewgen.explain, {"source": n, "text": "The food"}),
        "register_model": (reviewgen.register_model, {"name": "mine", "model": type(g.model)}),
        "register_tokenizer": (reviewgen.register_tokenizer, {"name": "mine", "tokenizer": type(n.tokenizer)}),
        "push_with_space": (push_with_space, {"model": n, "repo_id": "ana/m", "license": "mit"}),
        "export_html": (export_html, {"model": n, "path": Path("p.html")}),
        "export_onnx": (export_onnx, {"model": n, "folder": Path("o")}),
        "export_transformers": (export_transformers, {"model": n, "folder": Path("t")}),
    }


def _methods(models: Mapping[str, reviewgen.ReviewModel]) -> dict[str, Call]:
    functions: dict[str, Call] = {}
    for kind, model in models.items():
        short = {"max_new_tokens": 5}
        functions |= {
            f"{kind}.generate": (model.generate, short),
            f"{kind}.generate_one": (model.generate_one, short),
            f"{kind}.generate_each": (model.generate_each, short),
            f"{kind}.stream": (model.stream, short),
            f"{kind}.next_tokens": (model.next_tokens, {}),
            f"{kind}.walk": (model.walk, {}),
            f"{kind}.evaluate": (model.evaluate, {"source": TEXTS}),
            f"{kind}.novelty": (model.novelty, {"text": "The food"}),
            f"{kind}.score": (model.score, {"text": "The food"}),
            f"{kind}.save_pretrained": (model.save_pretrained, {"save_directory": "copy"}),
            f"{kind}.save_generation_config": (model.save_generation_config, {"save_directory": "copy2"}),
            f"{kind}.is_saved_in": (model.is_saved_in, {"folder": "copy"}),
            f"{kind}.to": (model.to, {"device": "cpu"}),
            f"{kind}.generate_model_card": (model.generate_model_card, {}),
            f"{kind}.push_to_hub": (model.push_to_hub, {"repo_id": "ana/m", "license": "mit"}),
            f"{kind}.walk.take": (lambda token, model=model: model.walk("The ").take(token), {"token": 5}),
            f"{kind}.walk.write": (lambda text, model=model: model.walk("The ").write(text), {"text": "foo"}),
            f"{kind}.walk.draw": (lambda number, model=model: model.walk("The ").draw(number), {"number": 2}),
            f"{kind}.walk.next_tokens": (lambda k, model=model: model.walk("The ").next_tokens(k), {"k": 2}),
        }
    return functions


def _results(models: Mapping[str, reviewgen.ReviewModel], folder: Path) -> dict[str, Call]:
    """Return the methods of what other functions return."""
    comparison = reviewgen.compare([folder / "n"], TEXTS, progress=False)
    return {
        "explanation.save_html": (reviewgen.explain(models["ngram"], "The food").save_html, {"file": "e.html"}),
        "comparison.save_html": (comparison.save_html, {"file": "c.html"}),
    }
