"""A logistic regression on hashed n-grams of words and characters, by scikit-learn (extra
``report``).

Shapes by letter: N texts, C classes, F features.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float64

_WORDS = 2**17  # number of hashed features for words and pairs of words
_CHARACTERS = 2**16  # number of hashed features for runs of 2 to 4 characters
_MAX_CHARACTERS = 1_000  # maximum number of characters of a text that are read
FOLDS = 5  # of the cross-validation
INSTALL = "This needs scikit-learn: pip install 'reviewgen[report]'."


def is_installed() -> bool:
    """Return whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def hash_texts(texts: Iterable[str]) -> Any:
    """Return the features of some texts as a sparse matrix (N, F)."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import HashingVectorizer

    cut = [text[:_MAX_CHARACTERS] for text in texts]
    by_words = HashingVectorizer(
        ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]+", n_features=_WORDS, alternate_sign=False
    )
    by_characters = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=_CHARACTERS, alternate_sign=False
    )
    return hstack([by_words.transform(cut), by_characters.transform(cut)]).tocsr()


def fit(features: Any, classes: Sequence[Any] | np.ndarray) -> Any:
    """Fit a classifier to the features (N, F) and the class of each text."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    # the dual problem is solved faster if there are many more features than texts
    model = LogisticRegression(solver="liblinear", dual=True, tol=0.01, random_state=0)
    if len(set(classes)) > 2:
        model = OneVsRestClassifier(model)
    return model.fit(features, classes)


def cross_validate(
    features: Any, classes: np.ndarray, texts: Sequence[str]
) -> tuple[Float64[np.ndarray, "N C"], np.ndarray]:
    """Return the probability of each class for each text, and the C classes in the order of the
    columns. The classifier of a text has not been trained on it: there are five folds, and equal
    texts are in the same fold.
    """
    names = np.unique(classes)
    fold_of: dict[str, int] = {}
    # by class, the number of different texts so far; they are dealt to the folds in turn
    dealt = Counter[Any]()
    for index in np.random.default_rng(0).permutation(len(texts)):
        if texts[index] not in fold_of:
            fold_of[texts[index]] = dealt[classes[index]] % FOLDS
            dealt[classes[index]] += 1
    folds = np.array([fold_of[text] for text in texts])
    probabilities = np.full((len(texts), len(names)), 1 / len(names))
    for fold in range(FOLDS):
        test = np.flatnonzero(folds == fold)
        train = np.flatnonzero(folds != fold)
        # If there are few different texts, a fold may be empty, or hold all texts of a class. Then
        # the classes stay equally probable.
        if len(test) and len(np.unique(classes[train])) > 1:
            model = fit(features[train], classes[train])
            columns = np.searchsorted(names, model.classes_)
            probabilities[test[:, None], columns] = model.predict_proba(features[test])
    return probabilities, names
