"""Whether a text praises and blames at once: a word of clear praise and a word of clear blame stand
in it.

The words are clear in nearly every review that has them; "good", "best" and "love", which also
stand for guys, actors and stories, are left out. Negations are not looked at: "not boring" counts
as blame, in generated and human texts alike.
"""

from collections.abc import Iterable

from reviewgen.lexicon.words import words_of

_PRAISE = """
    amazing awesome beautifully brilliant brilliantly captivating charming compelling delightful
    enjoyable enjoyed excellent exceptional fantastic flawless gem great gripping heartwarming
    hilarious impressive incredible loved magnificent marvelous masterpiece memorable
    outstanding perfect perfectly phenomenal remarkable riveting splendid stunning superb
    superbly terrific touching wonderful wonderfully
"""
_BLAME = """
    abysmal annoying appalling atrocious awful bad badly bland bored boring clumsy crap
    disappointed disappointing disappointment disaster dreadful dull embarrassing forgettable
    garbage hated horrible incoherent inept lame laughable mediocre pathetic pointless poorly
    rubbish stupid tedious terrible terribly unfunny unwatchable waste wasted worst
"""


PRAISE = frozenset(_PRAISE.split())
BLAME = frozenset(_BLAME.split())


def praises_and_blames(text: str) -> bool:
    """Return whether a text has a word of praise and a word of blame."""
    words = {word.casefold() for word in words_of(text)}
    return bool(words & PRAISE) and bool(words & BLAME)


def share_of_both(texts: Iterable[str]) -> float:
    """Return the share of texts that praise and blame."""
    both = [praises_and_blames(text) for text in texts]
    return sum(both) / len(both)
