"""A trained model and its tokenizer as one thing that generates, scores, evaluates and saves itself.

review_model    ReviewModel
request         what one call of ``generate`` asks for, checked
texts           what it returns
"""

from reviewgen.model.review_model import ReviewModel
from reviewgen.model.texts import GeneratedText, Generation

__all__ = ["GeneratedText", "Generation", "ReviewModel"]
