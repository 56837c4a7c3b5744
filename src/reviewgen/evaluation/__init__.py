"""Evaluation of a model in bits per character, which compares models of different vocabularies (n-gram, character, BPE).

It is the sum of ``-log2 p`` over all tokens of the texts, end tokens included, divided by the number of characters of the texts.
No token is skipped: if the model gives one probability zero, the result is infinite, and the number of such tokens is reported.
Condition ids are inputs and not predicted, so they add no bits. Inner functions use nats, results are in bits.

    results  evaluations and scores, as plain data
    losses   the negative log likelihood of each token of many texts, scored together in rows
    scoring  from texts to results
    metrics  metrics of generated texts by name
    text_statistics  how generated texts read, beside human ones
"""

from reviewgen.evaluation.losses import Document, batches, token_losses
from reviewgen.evaluation.metrics import Metrics, find_metrics
from reviewgen.evaluation.results import Evaluation, Score, TokenScore, Totals, finite
from reviewgen.evaluation.scoring import (
    add_up,
    add_up_documents,
    evaluate_documents,
    log_probabilities,
    measure_rate,
    sample_documents,
    score_text,
    score_tokens,
    spread_documents,
)
from reviewgen.evaluation.text_statistics import TextStatistics, measure_texts, take_words

__all__ = [
    "Document",
    "Evaluation",
    "Metrics",
    "Score",
    "TextStatistics",
    "TokenScore",
    "Totals",
    "add_up",
    "add_up_documents",
    "batches",
    "evaluate_documents",
    "find_metrics",
    "finite",
    "log_probabilities",
    "measure_rate",
    "measure_texts",
    "sample_documents",
    "score_text",
    "score_tokens",
    "spread_documents",
    "take_words",
    "token_losses",
]
