"""Calls of every public function and method with values that its arguments should not have.

Judged by: a ReviewgenError below 500 characters, or a TypeError that Python itself raises for arguments that do not exist; no
other exception, and at most 20 seconds of computing.
"""

import contextlib
import inspect
import io
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_type_hints

from tests.hostile.frame import Fuzzer, Outcome
from tests.hostile.values import hostile_value

__all__ = ["FUZZER", "Calls"]

LIMIT, SECONDS, WAITED = 500, 20, 120  # characters; seconds of computing, and in all, as other processes may be busy
TEXTS = [f"The {noun} was {kind} number {i}." for noun in ("food", "band") for kind in ("good", "bad") for i in range(12)]
TINY = {"model": {"hidden_size": 8, "embedding_size": 4}, "training": {"batch_size": 4}}
_NAMES_ONLY = ("arguments", "argument", "keyword", "positional")


class Calls:
    """The fuzzer."""

    name = "calls"

    def prepare(self, folder: Path) -> None:
        """Train two small models, and list the functions."""
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
        os.environ["REVIEWGEN_CACHE"] = str(folder / "cache")
        import reviewgen

        self.folder = folder
        self.models = {
            "ngram": reviewgen.train("ngram-char", TEXTS, progress=False, steps=1, out=folder / "n"),
            "gru": reviewgen.train("gru-char", TEXTS, progress=False, steps=2, out=folder / "g", **TINY),
        }
        self.functions = self._list_functions()
        for name in ("tune_sampling", "compare", "explain"):  # what they compile once counts for no case
            function, base = self.functions[name]
            _consume(function(**base(random.Random(0))))

    def run(self, seed: int) -> Outcome:
        """Call one function."""
        rng = random.Random(seed)
        name = rng.choice(sorted(self.functions))
        function, base = self.functions[name]
        own, changed = self._arguments(rng, function, dict(base(rng)))
        case = f"{name}({', '.join(f'{key}={_show(own[key])}' for key in changed)})"
        place = self.folder / "place"
        place.mkdir()
        before = Path.cwd()
        os.chdir(place)
        try:
            return self._judge(case, function, own)
        finally:
            os.chdir(before)
            shutil.rmtree(place, ignore_errors=True)

    def close(self) -> None:
        """Nothing was started."""

    def _arguments(self, rng: random.Random, function: Any, own: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the arguments of a case, and the names of those that were changed."""
        names = [name for name in _names_of(function) if name not in ("self", "progress")]
        changed = rng.sample(names, min(len(names), rng.choice([1, 1, 1, 2])))
        if rng.random() < 0.03:
            changed.append(rng.choice(["unknown", "temprature", "x" * 1000]))
        for name in changed:
            own[name] = hostile_value(rng)
        return own, changed

    def _judge(self, case: str, function: Callable[..., Any], own: dict[str, Any]) -> Outcome:
        from reviewgen.errors import ReviewgenError

        try:
            with _limited(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                _consume(function(**own))
        except ReviewgenError as error:
            text = str(error)
            is_clean = 10 < len(text) < LIMIT and "Traceback" not in text
            return Outcome("clean" if is_clean else "failed", case, text[:2000])
        except TypeError as error:
            if len(traceback.extract_tb(error.__traceback__)) <= 2 and any(word in str(error) for word in _NAMES_ONLY):
                return Outcome("clean", case, str(error)[:LIMIT])
            return Outcome("failed", case, traceback.format_exc())
        except (Exception, _TooLong) as error:
            if Path(traceback.extract_tb(error.__traceback__)[-1].filename).name == "values.py":
                return Outcome("clean", case, "the exception of the user's own object")
            return Outcome("failed", case, traceback.format_exc())
        return Outcome("changed", case)

    def _list_functions(self) -> dict[str, tuple[Any, Callable[[random.Random], dict[str, Any]]]]:
        """Return each function with arguments that it accepts."""
        import reviewgen
        from reviewgen.export import export_html, export_onnx, export_transformers

        n, g = self.models["ngram"], self.models["gru"]
        train = {"start": "ngram-char", "source": TEXTS, "steps": 1}
        functions: dict[str, Any] = {
            "load": (reviewgen.load, {"source": self.folder / "n"}),
            "from_pretrained": (reviewgen.ReviewModel.from_pretrained, {"pretrained_model_name_or_path": self.folder / "n"}),
            "train": (reviewgen.train, train | {"progress": False}),
            "train gru": (reviewgen.train, train | {"start": "gru-char", "progress": False, **TINY}),
            "train further": (reviewgen.train, train | {"start": n, "progress": False}),
            "TrainingRun": (reviewgen.TrainingRun, train),
            "blend": (reviewgen.blend, {"models": [n, n], "weights": [1, 2]}),
            "prepare": (reviewgen.prepare, {"source": TEXTS, "preset": "gru-char", "out": "store"}),
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
            "plot_training": (reviewgen.plot_training, {"sources": [self.folder / "g"], "file": "a.svg"}),
            "compare": (reviewgen.compare, {"models": [self.folder / "n"], "data": TEXTS, "progress": False}),
            "generate_dataset": (reviewgen.generate_dataset, {"model": n, "n": 2, "out": "texts", "max_new_tokens": 5}),
            "score_dataset": (reviewgen.score_dataset, {"model": n, "source": TEXTS, "out": "scores"}),
            "novelty_dataset": (reviewgen.novelty_dataset, {"model": n, "source": TEXTS, "out": "copies"}),
            "graph": (reviewgen.graph, {"source": "gru-char", "out": "g.svg"}),
            "explain": (reviewgen.explain, {"source": n, "text": "The food"}),
            "register_model": (reviewgen.register_model, {"name": "mine", "model": type(g.model)}),
            "register_tokenizer": (reviewgen.register_tokenizer, {"name": "mine", "tokenizer": type(n.tokenizer)}),
            "export_html": (export_html, {"model": n, "path": Path("p.html")}),
            "export_onnx": (export_onnx, {"model": n, "folder": Path("o")}),
            "export_transformers": (export_transformers, {"model": n, "folder": Path("t")}),
        }
        for kind, model in self.models.items():
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
                f"{kind}.generate_model_card": (model.generate_model_card, {}),
                f"{kind}.push_to_hub": (model.push_to_hub, {"repo_id": "ana/m", "license": "mit"}),
                f"{kind}.walk.take": (lambda token, model=model: model.walk("The ").take(token), {"token": 5}),
                f"{kind}.walk.write": (lambda text, model=model: model.walk("The ").write(text), {"text": "foo"}),
                f"{kind}.walk.draw": (lambda number, model=model: model.walk("The ").draw(number), {"number": 2}),
                f"{kind}.walk.next_tokens": (lambda k, model=model: model.walk("The ").next_tokens(k), {"k": 2}),
            }
        explanation = reviewgen.explain(n, "The food")
        functions["explanation.save_html"] = (explanation.save_html, {"file": "e.html"})
        comparison = reviewgen.compare([self.folder / "n"], TEXTS, progress=False)
        functions["comparison.save_html"] = (comparison.save_html, {"file": "c.html"})
        return {name: (function, lambda rng, base=base: base) for name, (function, base) in functions.items()}


class _TooLong(BaseException):
    """A call has taken too long; not an Exception, so that nothing on the way catches it."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, WAITED)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


def _names_of(function: Any) -> list[str]:
    """Return the names of all keywords, those of ``Unpack[...]`` included."""
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "model" and parameter.default is not parameter.empty:
            continue  # that of a lambda above
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
            continue
        hint = parameter.annotation
        unpacked = _typed_dicts().get(str(hint).partition("[")[2].strip("]'\"").rpartition(".")[2])
        names += [] if unpacked is None else [name for name in get_type_hints(unpacked) if name not in names]
    return names


def _typed_dicts() -> dict[str, Any]:
    from reviewgen.comparison.comparing import CompareOptions
    from reviewgen.config import EvaluateOptions, GenerationSettings
    from reviewgen.generation import GenerateOptions
    from reviewgen.model import LoadOptions
    from reviewgen.preparation.options import PrepareOptions
    from reviewgen.runs.options import TrainOptions

    listed = (CompareOptions, EvaluateOptions, GenerationSettings, GenerateOptions, LoadOptions, PrepareOptions, TrainOptions)
    return {each.__name__: each for each in listed}


def _consume(result: Any) -> None:
    """Take what a function yields; go through the steps of a training run."""
    if type(result).__name__ == "TrainingRun":
        list(islice(result, 3))
    elif inspect.isgenerator(result) or type(result).__name__ in ("map", "islice"):
        list(islice(result, 20))


def _show(value: Any) -> str:
    try:
        return repr(value)[:80]
    except Exception:  # that is the point of some values
        return f"<{type(value).__name__}>"


FUZZER: Fuzzer = Calls()
