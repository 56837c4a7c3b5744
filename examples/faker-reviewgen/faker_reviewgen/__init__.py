"""A provider for Faker: reviews that a model of reviewgen writes.

A call of the model takes a few milliseconds however short the text is, so ``review`` generates
pages of texts. A text still depends only on the state of Faker's random numbers, a Mersenne
Twister: its 624 words stay the same for 624 numbers, and a place among them goes from 1 to 624. Two
of the words are the seed of a page, and the place is the number of the text. So calls of other
providers between two reviews change nothing else, and seeding Faker again repeats the texts.
"""

from collections import defaultdict
from functools import cached_property
from typing import Any, ClassVar

from faker.providers import BaseProvider

import reviewgen

__all__ = ["Provider", "ReviewProvider"]

PAGE_SIZE = 64  # texts that a model generates side by side


class ReviewProvider(BaseProvider):
    """Writes reviews with a model of reviewgen; a subclass can name another model.

    >>> fake = Faker()
    >>> fake.add_provider(ReviewProvider)
    >>> fake.review(stars=5)  # doctest: +SKIP

    Attributes:
        source: The model, as ``reviewgen.load`` takes it.
        settings: The settings of ``ReviewModel.generate``.
    """

    source: ClassVar[Any] = "ngram-word"
    settings: ClassVar[dict[str, Any]] = {"temperature": 1.0, "max_new_tokens": 60}

    def __init__(self, generator: Any) -> None:
        """Make the provider of a generator; the model is loaded by the first review."""
        super().__init__(generator)
        self._pages: dict[tuple[Any, ...], tuple[int, list[str]]] = {}

    def review(self, stars: int | None = None, **conditions: Any) -> str:
        """Return a review.

        Args:
            stars: The rating, from 1 to 5. A model without the condition ``stars`` writes under its
                condition ``sentiment``: negative for 1 and 2, positive for 4 and 5.
            **conditions: Values of further conditions of the model.

        Raises:
            reviewgen.ReviewgenError: The model cannot be loaded, or lacks a condition or its value.
        """
        numbers = self.generator.random
        numbers.getrandbits(32)
        *words, place = numbers.getstate()[1]
        page, number = divmod(place, PAGE_SIZE)
        seed = words[page] << 32 | words[page + 1]
        values = self._conditions(stars) | conditions
        key = tuple(sorted(values.items()))
        if key not in self._pages or self._pages[key][0] != seed:
            self._pages[key] = seed, self._generate(PAGE_SIZE, seed, values)
        return self._pages[key][1][number]

    def review_table(self, n: int, stars: int | None = None) -> list[dict[str, Any]]:
        """Return n rows with the columns ``stars`` and ``review``; stars are drawn from 1 to 5 if
        they are not given.

        Raises:
            reviewgen.ReviewgenError: The model cannot be loaded, or lacks a condition or its value.
        """
        ratings = [self.random_int(1, 5) if stars is None else stars for _ in range(n)]
        rows_by_conditions = defaultdict(list)
        for row, rating in enumerate(ratings):
            rows_by_conditions[tuple(self._conditions(rating).items())].append(row)
        texts = [""] * n
        for conditions, rows in rows_by_conditions.items():
            seed = self.generator.random.getrandbits(64)
            generated = self._generate(len(rows), seed, dict(conditions))
            for row, text in zip(rows, generated, strict=True):
                texts[row] = text
        pairs = zip(ratings, texts, strict=True)
        return [{"stars": rating, "review": text} for rating, text in pairs]

    @cached_property
    def _model(self) -> reviewgen.ReviewModel:
        return reviewgen.load(self.source)

    def _conditions(self, stars: int | None) -> dict[str, Any]:
        """Return a rating as conditions of the model."""
        if stars is None:
            return {}
        names = [condition.name for condition in self._model.conditions]
        if "stars" in names or "sentiment" not in names:
            return {"stars": stars}
        if stars == 3:
            return {}
        return {"sentiment": "positive" if stars > 3 else "negative"}

    def _generate(self, count: int, seed: int, conditions: dict[str, Any]) -> list[str]:
        """Return ``count`` texts."""
        options = {"seed": seed, "conditions": conditions} | self.settings
        return [str(text) for text in self._model.generate([""] * count, **options)]


Provider = ReviewProvider
"""The name that ``Faker(includes=["faker_reviewgen"])`` and ``faker -i faker_reviewgen`` look
for.
"""
