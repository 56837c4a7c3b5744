"""Exports an n-gram model as an ARPA file, the text format of KenLM, SRILM and others.

Words of an ARPA file have no white space, and tokens of a model may. So a token is written as its
UTF-8 bytes, each as one character of the alphabet of GPT-2: printable ASCII is itself, a space is
Ġ, a line end Ċ. transformers names the tokens of ``word`` in the same way. Half a byte, the
fallback of ``char``, is ``<0>`` to ``<f>``. The tokens of a tokenizer without ``token_bytes`` are
written as they are. bos, eos and words that do not exist are ``<s>``, ``</s>`` and ``<unk>``. A
value of a condition is a word such as ``<stars=5>``, and an unspecified one ``<stars>``.

Source: Radford et al. 2019, "Language models are unsupervised multitask learners" (the alphabet).
"""

import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from reviewgen.compiled.spelling import HALF
from reviewgen.errors import ConfigError, quoted, storage_errors
from reviewgen.model.review_model import ReviewModel, check_model
from reviewgen.protocols.arpa import SupportsArpa
from reviewgen.protocols.tokenizer import SupportsTokenBytes
from reviewgen.storage import atomic_file
from reviewgen.web.rendering import refuse_file

_ZERO = -99  # the logarithm that other programs write for probability zero
# the bytes that GPT-2 writes as the character of the same number, and those that it writes as the
# characters from 256 on
_PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
_OTHERS = sorted({*range(256)} - _PRINTABLE)


def export_arpa(
    model: ReviewModel, file: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Write an n-gram model as an ARPA file. ``arpa_line`` gives the words of a text in it.

    Args:
        model: An n-gram with back-off weights and without fields.
        file: The new file, whose name ends in .arpa.
        overwrite: Whether to replace a file.

    Raises:
        ConfigError: The model is not an n-gram, has fields, or its smoothing has no back-off
            weights; or the tokens cannot be written as distinct words.
        OutputExists: The file exists, and ``overwrite`` is false.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_model("model", model)
    path = refuse_file(Path(file), [".arpa"], overwrite)
    stepper = model.bundle.weights.stepper()
    if not isinstance(stepper, SupportsArpa):
        raise ConfigError(
            f"The model {model.bundle.model_plugin.name!r} does not consist of n-grams, as an ARPA"
            " file does: export an ngram model, or this one with --onnx FOLDER or --out PAGE.html."
        )
    words = _words(model)
    orders = stepper.to_arpa()
    with storage_errors(path), atomic_file(path) as new, new.open("w", encoding="utf-8") as stream:
        has_unknown = "<unk>" in words
        counts = [len(order.ids) for order in orders]
        counts[0] += not has_unknown  # <unk> is written even if it is not a token
        stream.write("\\data\\\n")
        stream.writelines(f"ngram {order}={count}\n" for order, count in enumerate(counts, 1))
        for order, ngrams in enumerate(orders, 1):
            stream.write(f"\n\\{order}-grams:\n")
            if order == 1 and not has_unknown:
                stream.write(f"{_ZERO}\t<unk>\t0\n")
            columns = (column.tolist() for column in ngrams)
            for ids, probability, backoff in zip(*columns, strict=True):
                ngram = " ".join([words[token] for token in ids])
                # a logarithm must be at most 0
                line = f"{min(probability, 0.0):.7g}\t{ngram}"
                stream.write(f"{line}\t{backoff:.7g}\n" if order < len(orders) else f"{line}\n")
        stream.write("\n\\end\\\n")
    return path


def arpa_line(
    model: ReviewModel, text: str, conditions: Mapping[str, str | int | float] | None = None
) -> str:
    """Return a text as the words of an exported ARPA file, separated by spaces. The values of the
    model's conditions come first.

    >>> arpa_line(reviewgen.load("my-ngram"), "a good film")  # doctest: +SKIP
    'a Ġgood Ġfilm'

    Raises:
        ConfigError: A condition or its value is unknown, or the model cannot be exported.
    """
    check_model("model", model)
    words = _words(model)
    ids = [*model.conditions.encode(conditions or {}), *model.tokenizer.encode(text)]
    return " ".join([words[token] for token in ids])


def _words(model: ReviewModel) -> list[str]:
    """Return the word of each token of a model.

    Raises:
        ConfigError: Two tokens have the same bytes or text, or the text of a token has white space;
            or the model has fields.
    """
    tokenizer = model.tokenizer
    if model.conditions.fields:
        raise ConfigError(
            "A model with fields does not have the form of an ARPA file, since it copies from them:"
            " train without --field."
        )
    if isinstance(tokenizer, SupportsTokenBytes):
        words = ["".join(map(_symbol, token)) for token in tokenizer.token_bytes()]
    else:
        words = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    words[tokenizer.bos_id] = "<s>"
    words[tokenizer.eos_id] = "</s>"
    for condition in model.conditions.fixed:
        labels = [condition.name, *(f"{condition.name}={each.label}" for each in condition.values)]
        words += [f"<{''.join(map(_symbol, label.encode()))}>" for label in labels]
    # The parts of words that white space separates; an empty word has none. So they equal the words
    # only if no word is empty or has white space.
    parts = {*chain.from_iterable(map(str.split, words))}
    if parts != {*words} or len(parts) < len(words):
        raise ConfigError(
            f"The tokens of {quoted(type(tokenizer).__name__)} cannot be written as distinct words:"
            " use a model with the tokenizer word, char or whitespace."
        )
    return words


def _symbol(value: int) -> str:
    """Return the character of a byte, or the word of half a byte."""
    if value >= HALF:
        return f"<{value - HALF:x}>"
    return chr(value if value in _PRINTABLE else 256 + _OTHERS.index(value))
