"""``reviewgen neighbours | contrast | classify``: what a model knows of words, and of the values of its conditions."""

from dataclasses import asdict
from typing import Any

from reviewgen.cli.console import Result, make_table, working
from reviewgen.cli.options import parse_data, takes
from reviewgen.config.options import Evaluating
from reviewgen.errors import ConfigError


@takes()
def neighbours(model: str, word: str, *, k: int = 10) -> Result:
    """Show the words whose embeddings are nearest to that of a word, with the cosines.

    Args:
        word: The word; with a tokenizer of characters, a character.
        k: The number of words.
    """
    from reviewgen.api import load
    from reviewgen.look.words import neighbours as find_neighbours

    found = find_neighbours(load(model), word, k)
    facts = {"word": word, "neighbours": [asdict(each) for each in found]}
    return Result(facts, [f"{each.cosine:6.3f}  {each.word}" for each in found])


@takes()
def contrast(model: str, condition: str, *, k: int = 10, seed: int = 0) -> Result:
    """Show the words that each value of a condition prefers: how many times as probable they are, as log2.

    Args:
        condition: The condition, as in sentiment.
        k: The number of words of each value.
        seed: The seed of the texts that are written for it.
    """
    from reviewgen.api import load
    from reviewgen.look.words import contrast as find_words

    with working("Writing texts of each value ..."):
        found = find_words(load(model), condition, k, seed)
    values = list(dict.fromkeys(each.value for each in found))
    columns = [[f"{each.word} {each.log_ratio:+.1f}" for each in found if each.value == value] for value in values]
    rows = [
        [column[place] if place < len(column) else "" for column in columns] for place in range(max(map(len, columns), default=0))
    ]
    return Result(
        {"condition": condition, "words": [asdict(each) for each in found]}, [make_table(*values, rows=rows, left=values)]
    )


@takes(Evaluating)
def classify(model: str, *, condition: str, text: str | None = None, data: str | None = None, **options: Any) -> Result:
    """Tell which value of a condition fits a text best, by Bayes' rule; or the share of a corpus for which it is the right one.

    Args:
        condition: The condition, as in sentiment.
        text: The text.
        data: Texts, as for `evaluate`, with a column of that name.
    """
    from reviewgen.api import load
    from reviewgen.look.words import classify as classify_texts
    from reviewgen.look.words import measure_accuracy

    if (text is None) == (data is None):
        raise ConfigError("Give a text with --text, or texts with --data.")
    trained = load(model)
    if data is not None:
        with working("Classifying ..."):
            accuracy = measure_accuracy(trained, parse_data(data), condition, **options)
        return Result(asdict(accuracy), [accuracy.describe()])
    (found,) = classify_texts(trained, [str(text)], condition)
    lines = [f"{share:7.1%}  {value}" for value, share in sorted(found.probabilities.items(), key=lambda each: -each[1])]
    return Result(asdict(found), lines)
