"""Fields on posts about music: do texts name the artist that was asked for, and what do the fields
save?

    python -m tests.benchmarks fields music_blog_reviews.json ngram-word lstm-word:10m

The file has records with ``content`` and a ``title`` such as 'Mt. Joy - "Silver Lining"', of which
the fields ``artist`` and ``song`` are made. Each preset is trained twice, with the fields and
without, on the same posts in the same time. Then both write four texts for each held-out post that
has both fields. Of these texts and of the posts themselves are counted the share that names the
artist, and the words of the artist and the song in a text. The bits that a field saves are those of
``evaluate``.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import reviewgen
from reviewgen.lexicon.words import words_of

FIELDS = ("artist", "song")
_SPLIT = re.compile(r"^(?:\[.*?\]:?\s*)?(.*?)\s*(?:[-–—]+|//|\|)\s+(.*)$")
_VERBS = "Shares?|Unveils?|Releases?|Drops?|Premieres?|Returns? With|Announces?|Reveals?"
_NEWS = re.compile(rf"^(.*?)\s+(?:{_VERBS})\s+.*?[\"“‘'](.*?)[\"”’']", re.IGNORECASE)
_TEXTS = 4  # for each post


def read_posts(file: Path) -> list[dict[str, str]]:
    """Return the posts with their fields, which are empty where the title is of another form."""
    posts = []
    for record in json.loads(file.read_text(encoding="utf-8")):
        found = _SPLIT.match(record["title"]) or _NEWS.match(record["title"])
        artist, song = found.groups() if found else ("", "")
        song = re.sub(r"[\"“”‘’]|\s*[(\[].*$", "", song)
        posts.append({"text": record["content"], "artist": artist.strip(), "song": song.strip()})
    return posts


def count_named(texts: Sequence[str], posts: Sequence[dict[str, str]]) -> tuple[float, float]:
    """Return the share of texts that name their post's artist, and the mean number of words of the
    artist and song in a text.
    """
    pairs = list(zip(texts, posts, strict=True))
    named = mean(
        post["artist"].casefold() in " ".join(text.split()).casefold() for text, post in pairs
    )
    wanted = [set(words_of(f"{post['artist']} {post['song']}".casefold())) for post in posts]
    return named, mean(
        sum(word in own for word in words_of(text.casefold()))
        for text, own in zip(texts, wanted, strict=True)
    )


def main(*words: str) -> None:
    """Train, write and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("presets", nargs="+", help="a preset, or preset:budget")
    given = parser.parse_args(words)
    posts = read_posts(given.file)
    test = [row for row in reviewgen.corpus(posts, fields=FIELDS) if row["split"] == 2]
    asked = [row for row in test if row["artist"] and row["song"]]
    named, words = count_named([row["text"] for row in asked], asked)
    print(f"{len(posts):,} posts, {len(test)} held out, {len(asked)} of them with both fields")
    print(
        f"{'people':24} names the artist {named:6.1%}   words of artist and song {words:5.2f} a"
        " text"
    )
    for each in given.presets:
        preset, _, budget = each.partition(":")
        length = {"budget": budget} if budget else {}
        for fields in (FIELDS, ()):
            model = reviewgen.train(preset, posts, fields=fields, seed=1, **length)
            prefixes = [{name: row[name] for name in fields} for row in asked * _TEXTS]
            texts = [
                model.generate_one(conditions=own, seed=seed, max_new_tokens=400)
                for seed, own in enumerate(prefixes)
            ]
            named, words = count_named(texts, asked * _TEXTS)
            print(
                f"{each + (' with fields' if fields else ' without'):24} names the artist"
                f" {named:6.1%}   ",
                end="",
            )
            print(f"words of artist and song {words:5.2f} a text")
            result = model.evaluate([row for row in test if row["text"]], clean=False)
            print(f"{'':24} {result.bits_per_character:.4f} bits per character of held-out posts")
            for gain in result.conditions:
                per_post = gain.characters / max(1, sum(bool(row[gain.name]) for row in test))
                saved = gain.bits_per_character * per_post
                other = gain.shuffled * per_post
                print(
                    f"{'':24} {gain.describe()}: {saved:.1f} bits a post, that of another"
                    f" {other:.1f}"
                )
