"""The conformance suite: checks of the contracts in ``reviewgen.protocols``, for the tests of any
plugin.

Each law of a contract is one function. It takes ``make``, a callable that returns a new model or
tokenizer, and raises an AssertionError that says what is required and what was returned. With
pytest, the ids of the tests are the names of the laws::

    import pytest
    from reviewgen.testing import MODEL_LAWS, TOKENIZER_LAWS, TRAINING_TEXTS

    @pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
    def test_model(law):
        law(lambda: MyModel(MyModel.Config(vocab_size=11)).eval())

    @pytest.mark.parametrize("law", TOKENIZER_LAWS, ids=lambda law: law.__name__)
    def test_tokenizer(law):
        law(lambda: MyTokenizer.train(TRAINING_TEXTS, MyTokenizer.Config()))

``check_plugin`` checks an installed plugin as a whole, from its metadata to texts in a fresh
process. ``make_model`` and ``make_tokenizer`` create an installed plugin by name; ``check_model``,
``check_tokenizer`` and ``check_stepper`` check all laws in one call. ``STEPPER_LAWS`` take the
model's ``make`` and the factory of its stepper, or None. The laws of a logits processor take its
factory, as in ``check_processor(NoDigits)``. The laws of a metric take the metric, as in
``check_metric(WORD_LENGTH)``. The laws of a reader take the reader and a file, as in
``check_reader(read, "a.mbox")``. A law of an optional protocol (``CountTrained``,
``SupportsScore``, ``SupportsEncodeBatch``) passes if the plugin does not implement it. The suite
depends on the contracts only, never on a plugin. It needs the extra ``reviewgen[testing]``.
"""

from typing import TYPE_CHECKING

from reviewgen.lazy import import_on_first_use

if TYPE_CHECKING:
    from reviewgen.testing.abilities import MODEL_LAWS, check_model
    from reviewgen.testing.metrics import METRIC_LAWS, READER_LAWS, check_metric, check_reader
    from reviewgen.testing.models import make_model, train_by_counting
    from reviewgen.testing.plugin import PluginCheck, PluginReport, check_plugin
    from reviewgen.testing.processors import PROCESSOR_LAWS, check_processor
    from reviewgen.testing.steppers import STEPPER_LAWS, check_stepper
    from reviewgen.testing.tokenizers import (
        NASTY_TEXTS,
        TOKENIZER_LAWS,
        TRAINING_TEXTS,
        check_tokenizer,
        make_tokenizer,
    )

__all__ = [
    "METRIC_LAWS",
    "MODEL_LAWS",
    "NASTY_TEXTS",
    "PROCESSOR_LAWS",
    "READER_LAWS",
    "STEPPER_LAWS",
    "TOKENIZER_LAWS",
    "TRAINING_TEXTS",
    "PluginCheck",
    "PluginReport",
    "check_metric",
    "check_model",
    "check_plugin",
    "check_processor",
    "check_reader",
    "check_stepper",
    "check_tokenizer",
    "make_model",
    "make_tokenizer",
    "train_by_counting",
]

__getattr__ = import_on_first_use(
    __name__,
    {
        "abilities": "MODEL_LAWS check_model",
        "metrics": "METRIC_LAWS READER_LAWS check_metric check_reader",
        "models": "make_model train_by_counting",
        "plugin": "PluginCheck PluginReport check_plugin",
        "processors": "PROCESSOR_LAWS check_processor",
        "steppers": "STEPPER_LAWS check_stepper",
        "tokenizers": "NASTY_TEXTS TOKENIZER_LAWS TRAINING_TEXTS check_tokenizer make_tokenizer",
    },
)
