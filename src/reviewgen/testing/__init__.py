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
factory, ``check_processor(NoDigits)``; those of a metric take the metric,
``check_metric(WORD_LENGTH)``; and those of a reader take the reader and a file,
``check_reader(read, "a.mbox")``. A law of an optional protocol (``CountTrained``,
``SupportsScore``, ``SupportsEncodeBatch``) passes if the plugin does not implement it. The suite
depends on the contracts only, never on a plugin. It needs the extra ``reviewgen[testing]``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
