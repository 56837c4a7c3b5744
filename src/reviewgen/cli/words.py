"""``reviewgen neighbours | contrast | classify``: what a model has learned about words and its conditions."""

from itertools import zip_longest
from typing import Any

from reviewgen import api
from reviewgen.cli.console import Result, make_table, show_status
from reviewgen.cli.options import parse_data, read_stdin, takes
from reviewgen.config.options import EvaluationOptions
from reviewgen.errors import ConfigError


@takes()
def neighbours(model: str, word: str, *, k: int = 10) -> Result:
    """Show the words whose embeddings are nearest to that of a word, with their cosine similarities.

    Args:
        word: The word; with a tokenizer of characters, a character.
        k: The number of words.
    """
    nearest = api.load(model).neighbours(word, k=k)
    return Result({"word": word, "neighbours": nearest}, [f"{neighbour.cosine:6.3f}  {neighbour.word}" for neighbour in nearest])


@takes()
def contrast(model: str, condition: str, *, k: int = 10, seed: int = 0) -> Result:
    """Show the words that each value of a condition prefers, with the log2 ratio of their probabilities.

    Args:
        condition: A condition of categories or numbers, as in sentiment.
        k: The number of words of each value.
        seed: The seed of the texts in which the words are compared.
    """
    with show_status("Writing and reading texts ..."):
        preferred = api.load(model).contrast(condition, k=k, seed=seed)
    columns = [[f"{entry.word} {entry.log_ratio:+.1f}" for entry in words] for words in preferred.values()]
    table = make_table(*preferred, rows=zip_longest(*columns, fillvalue=""), left=preferred)
    return Result({"condition": condition, "values": preferred}, [table])


@takes(EvaluationOptions)
def classify(model: str, *, condition: str, text: str | None = None, data: str | None = None, **options: Any) -> Result:
    """Find the value of a condition that fits a text best, by Bayes' rule; or measure on a corpus how often that is correct.

    Args:
        condition: A condition of categories or numbers, as in sentiment.
        text: The text; - reads standard input.
        data: Texts, as for `evaluate`, with a column of the condition's name.
    """
    if (text is None) == (data is None):
        raise ConfigError("Give a text with --text, or a corpus with --data.")
    if data is not None:
        with show_status("Classifying ..."):
            accuracy = api.load(model).accuracy(parse_data(data), condition, **options)
        return Result(accuracy, [accuracy.describe()])
    (best,) = api.load(model).classify([read_stdin() if text == "-" else str(text)], condition)
    ranked = sorted(best.probabilities.items(), key=lambda pair: -pair[1])
    return Result({"condition": condition, **vars(best)}, [f"{share:7.1%}  {value}" for value, share in ranked])
