"""The conformance suite: the laws of the model and tokenizer contracts, for the tests of anybody's plugin.

Each law is one small function that takes ``make``, a callable that returns the thing to check, and raises AssertionError where
the law is broken. With pytest, the ids of the tests are the laws::

    import pytest
    from reviewgen.testing import MODEL_LAWS, TOKENIZER_LAWS, TRAINING_TEXTS

    @pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
    def test_model(law):
        law(lambda: MyModel(MyModel.Config(vocab_size=11)).eval())

    @pytest.mark.parametrize("law", TOKENIZER_LAWS, ids=lambda law: law.__name__)
    def test_tokenizer(law):
        law(lambda: MyTokenizer.train(TRAINING_TEXTS, MyTokenizer.Config()))

``make_model`` and ``make_tokenizer`` build an installed plugin by name; ``check_model`` and ``check_tokenizer`` run all laws in
one call. A law about an ability (``CountTrained``, ``SupportsScore``, ``SupportsEncodeBatch``) has nothing to say where the
ability is absent. The suite knows the contracts and no plugin. It needs the extra ``reviewgen[testing]``.
"""

from reviewgen.testing.model_laws import MODEL_LAWS, check_model
from reviewgen.testing.models import make_model, train_by_counting
from reviewgen.testing.tokenizer_laws import NASTY_TEXTS, TOKENIZER_LAWS, TRAINING_TEXTS, check_tokenizer, make_tokenizer

__all__ = [
    "MODEL_LAWS",
    "NASTY_TEXTS",
    "TOKENIZER_LAWS",
    "TRAINING_TEXTS",
    "check_model",
    "check_tokenizer",
    "make_model",
    "make_tokenizer",
    "train_by_counting",
]
