"""``check_plugin``: all that an installed plugin goes through, from its metadata to texts in a fresh process, in seconds."""

import time
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from reviewgen.errors import ReviewgenError
from reviewgen.inspection import inspect_plugins
from reviewgen.registry import find_logits_processor, find_metric, find_model, find_stepper
from reviewgen.storage import temporary_folder
from reviewgen.testing.in_use import try_metric, try_processor, try_weights
from reviewgen.testing.metric_laws import METRIC_LAWS
from reviewgen.testing.model_laws import MODEL_LAWS
from reviewgen.testing.models import make_model
from reviewgen.testing.processor_laws import PROCESSOR_LAWS
from reviewgen.testing.report import PluginCheck, PluginReport
from reviewgen.testing.stepper_laws import STEPPER_LAWS
from reviewgen.testing.subject import Subject, find_subject
from reviewgen.testing.tokenizer_laws import TOKENIZER_LAWS, make_tokenizer
from reviewgen.testing.trial import Trial

__all__ = ["check_plugin"]

MAX_PARAMETERS = 200_000_000
"""Of a preset: 800 MB of weights. These models are trained in minutes, on a laptop."""

_IMPORT_LIMIT = 60.0  # seconds
_SHORT = 300  # characters of a message


def check_plugin(name: str, on_check: Callable[[str], None] | None = None) -> PluginReport:
    """Check every installed plugin of a name as a user will meet it; takes up to 20 s for a small model.

    In order: its metadata and import, in a process of its own; its presets with their settings and sizes; the laws of the model,
    of its stepper and of the tokenizer; two training steps; saving; loading in a fresh process, which must generate the same
    texts for two prompts of different lengths; and the stepper against the plain call. Weights are loaded by name, here and in a
    fresh process. A logits processor keeps its laws and generates, a metric keeps its laws and is measured in a training. A
    check that needs one that has failed is not made.

    >>> check_plugin("mingru-char").raise_for_failure()                                            # doctest: +SKIP

    Args:
        name: A preset, which is checked with its model, with its tokenizer if one package provides both, and with its weights if
            they are installed; a model, trained with a preset of its package or the tokenizer ``char``; a tokenizer, trained
            with the model ``rnn``; a logits processor; or a metric.
        on_check: Called with the name of each check before it is made.

    Raises:
        UnknownPlugin: No installed plugin has that name.
    """
    subject = find_subject(name)
    run = _Run(on_check or (lambda _: None))
    run.check("metadata", lambda: _check_metadata(subject))
    with temporary_folder() as folder:
        if subject.preset_name:
            _check_trained(run, subject, folder)
        _check_in_use(run, subject, folder)
    return PluginReport(name, subject.preset_name, tuple(run.checks))


def _check_trained(run: "_Run", subject: Subject, folder: Path) -> None:
    """Check a preset, a model or a tokenizer, up to a saved model."""
    trial = Trial(subject, folder)
    run.check("presets", lambda: _check_presets(subject), "metadata")
    for law_name, law in _laws(subject):
        run.check(f"law {law_name}", law, "metadata")
    run.check("training", trial.train, "metadata")
    run.check("saving", trial.save, "training")
    run.check("fresh process", trial.generate_elsewhere, "saving")
    run.check("stepper", trial.compare_stepper, "saving")


def _check_in_use(run: "_Run", subject: Subject, folder: Path) -> None:
    """Check weights, a logits processor and a metric, whichever have the name."""
    name = subject.name
    if subject.has("weights"):
        run.check("weights", lambda: try_weights(name), "metadata")
    if subject.has("logits processor"):
        for processor_law in PROCESSOR_LAWS:
            law = _bind(processor_law, lambda: find_logits_processor(name)[0], is_made=True)
            run.check(f"law {processor_law.__name__} of the logits processor", law, "metadata")
        run.check("generation", lambda: try_processor(name, folder / "processor"), "metadata")
    if subject.has("metric"):
        for metric_law in METRIC_LAWS:
            law = _bind(metric_law, lambda: find_metric(name)[0], is_made=True)
            run.check(f"law {metric_law.__name__} of the metric", law, "metadata")
        run.check("measuring", lambda: try_metric(name), "metadata")


class _Run:
    """The checks that were made so far."""

    def __init__(self, on_check: Callable[[str], None]) -> None:
        self.checks: list[PluginCheck] = []
        self._on_check = on_check

    def check(self, name: str, function: Callable[[], str], needs: str | None = None) -> None:
        """Make a check if the one that it needs is ok."""
        if needs is not None and any(check.name == needs and check.outcome != "ok" for check in self.checks):
            self.checks.append(PluginCheck(name, "not checked", 0.0, f"needs the check {needs}"))
            return
        self._on_check(name)
        started = time.perf_counter()
        try:
            message, is_ok = function(), True
        except (AssertionError, ReviewgenError) as problem:
            message, is_ok = str(problem), False
        except (Exception, SystemExit) as error:  # a third party's code may raise anything
            message, is_ok = _describe_error(error), False
        seconds = time.perf_counter() - started
        self.checks.append(PluginCheck(name, "ok" if is_ok else "failed", seconds, _shorten(message)))


def _check_metadata(subject: Subject) -> str:
    """Check that all plugins concerned can be imported and are what their groups ask for."""
    results = inspect_plugins(subject.plugins, _IMPORT_LIMIT)
    problems = [each.problem for each in results if each.problem]
    assert not problems, " ".join(problems)
    names = ", ".join(f"{plugin.kind} {plugin.name}" for plugin in subject.plugins)
    plugin = subject.plugins[0]
    return f"{names}; {plugin.package} {plugin.version}".strip()


def _check_presets(subject: Subject) -> str:
    """Build the model of each preset in each of its sizes, without memory for its weights, and check the number of parameters."""
    if subject.preset().parts or not subject.model:
        return "of models of other packages"
    from reviewgen.registry import find_preset
    from reviewgen.testing.sizes import count_parameters

    names = [plugin.name for plugin in subject.own_presets()] or [subject.preset_name]
    sentences = []
    for name in names:
        preset = find_preset(name)
        choices = [{**preset.model_settings, **size} for size in preset.sizes] or [dict(preset.model_settings)]
        counts = [count_parameters(preset, settings) for settings in choices]
        assert counts == sorted(counts), f"The sizes of {name} have {counts} parameters; they must be listed from small to large."
        assert counts[-1] <= MAX_PARAMETERS, (
            f"{name} has {counts[-1]:,} parameters; at most {MAX_PARAMETERS:,} can be trained in minutes."
        )
        sentences.append(f"{name} {counts[0]:,}" + (f" to {counts[-1]:,}" if len(counts) > 1 else ""))
    return f"parameters: {', '.join(sentences)}"


def _laws(subject: Subject) -> list[tuple[str, Callable[[], str]]]:
    """Return the laws that hold for a plugin, by name."""
    model, tokenizer = subject.parts()
    laws: list[tuple[str, Callable[[], str]]] = []
    if subject.model:
        laws += [
            (law.__name__, _bind(law, lambda: make_model(model, **subject.small_settings()))) for law in _model_laws(subject)
        ]
        laws += [
            (f"{law.__name__} of the stepper", _bind(law, lambda: make_model(model, **subject.small_settings())))
            for law in _stepper_laws(subject, model)
        ]
    if subject.tokenizer:
        shared = {law.__name__ for law in MODEL_LAWS} if subject.model else set()
        laws += [
            (
                f"{law.__name__} of the tokenizer" if law.__name__ in shared else law.__name__,
                _bind(law, lambda: make_tokenizer(tokenizer)),
            )
            for law in TOKENIZER_LAWS
        ]
    return laws


def _model_laws(subject: Subject) -> tuple[Callable[[Callable[[], object]], None], ...]:
    try:
        return () if subject.preset().parts else MODEL_LAWS  # a blend has no settings to make one from
    except (Exception, SystemExit):  # a preset that cannot be imported, which the metadata report
        return MODEL_LAWS


def _stepper_laws(subject: Subject, model: str) -> list[Callable[[Callable[[], object]], None]]:
    """Return the laws of the model's stepper, each a function of ``make`` only; none if it has no stepper."""
    try:
        factory = find_stepper(model)
        has_stepper = not subject.preset().parts and (factory is not None or hasattr(find_model(model)[0], "stepper"))
    except (Exception, SystemExit):  # a package that cannot be imported, which the metadata report
        return []
    return [_with_factory(law, factory) for law in STEPPER_LAWS] if has_stepper else []


def _with_factory(law: Callable[[Any, Any], None], factory: Any) -> Callable[[Callable[[], object]], None]:
    @wraps(law)
    def check(make: Callable[[], object]) -> None:
        law(make, factory)

    return check


def _bind(law: Callable[[Any], None], make: Callable[[], object], is_made: bool = False) -> Callable[[], str]:
    """Return a law as a check; it takes ``make`` or, for ``is_made``, what that returns."""

    def check() -> str:
        law(make() if is_made else make)
        return (law.__doc__ or law.__name__).strip().partition("\n")[0]

    return check


def _describe_error(error: BaseException) -> str:
    """Return an error with the last line of the traceback that is not of reviewgen or torch, as a sentence."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not {"reviewgen", "torch"} & set(Path(frame.filename).parts)] or frames
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"


def _shorten(text: str) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= _SHORT else f"{joined[: _SHORT - 3]}..."
