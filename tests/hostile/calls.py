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
from tests.hostile.functions import TEXTS, TINY, list_functions
from tests.hostile.values import hostile_value

__all__ = ["FUZZER", "Calls"]

LIMIT, SECONDS, WAITED = 500, 20, 120  # characters; seconds of computing, and in all, as other processes may be busy
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
        self.functions = list_functions(self.models, folder)
        for name in ("tune_sampling", "compare", "explain"):  # what they compile once counts for no case
            function, base = self.functions[name]
            _consume(function(**base))

    def run(self, seed: int) -> Outcome:
        """Call one function."""
        rng = random.Random(seed)
        name = rng.choice(sorted(self.functions))
        function, base = self.functions[name]
        own, changed = self._arguments(rng, function, dict(base))
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
            last = traceback.extract_tb(error.__traceback__)[-1]
            if (Path(last.filename).name, last.name) == ("hooks.py", "_call"):
                return Outcome("clean", case, "the exception of the user's own function, which takes other arguments")
            if len(traceback.extract_tb(error.__traceback__)) <= 2 and any(word in str(error) for word in _NAMES_ONLY):
                return Outcome("clean", case, str(error)[:LIMIT])
            return Outcome("failed", case, traceback.format_exc())
        except (Exception, _TooLong) as error:
            if Path(traceback.extract_tb(error.__traceback__)[-1].filename).name == "values.py":
                return Outcome("clean", case, "the exception of the user's own object")
            return Outcome("failed", case, traceback.format_exc())
        return Outcome("changed", case)


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
