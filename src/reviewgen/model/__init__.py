"""A trained model and its tokenizer as one thing that generates, scores, evaluates and saves itself.

review_model    ReviewModel
writing         how it writes
request         what one call of ``generate`` asks for, checked
texts           what it returns
next_tokens     what a model expects after a text
walk            a text taken forward and back, token by token
hub_mixin       how it is saved, loaded and published
loading         a trained model from a folder, the Hub or a preset
sharing         a model published on the Hub, and fetched; ``privacy`` says what is looked for before that
"""

from reviewgen.model.next_tokens import Alternative, Context, NextTokens, Support
from reviewgen.model.review_model import ReviewModel
from reviewgen.model.texts import GeneratedText, Generation
from reviewgen.model.walk import Walk

__all__ = ["Alternative", "Context", "GeneratedText", "Generation", "NextTokens", "ReviewModel", "Support", "Walk"]
