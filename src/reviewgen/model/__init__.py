"""ReviewModel: a trained model and its tokenizer in one object that generates, scores, evaluates, saves and publishes itself."""

from reviewgen.generation import Alternative, Context, GeneratedText, Generation, NextTokens, Support, Walk
from reviewgen.model.review_model import LoadOptions, ReviewModel, check_model

__all__ = [
    "Alternative",
    "Context",
    "GeneratedText",
    "Generation",
    "LoadOptions",
    "NextTokens",
    "ReviewModel",
    "Support",
    "Walk",
    "check_model",
]
