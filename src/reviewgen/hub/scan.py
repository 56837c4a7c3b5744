"""Finds what blocks publishing a model: personal data in its generated texts or in its vocabulary,
and text that was copied from the training text.

This is a check, not a guarantee; see ``reviewgen.personal`` for the patterns.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from reviewgen.config.generation import GenerationConfig
from reviewgen.config.settings import check_list
from reviewgen.errors import ConfigError, NotPublished, did_you_mean, quoted
from reviewgen.personal import PERSONAL_DATA
from reviewgen.saving.layout import Bundle

_KINDS = (*PERSONAL_DATA, "copies", "text", "license")  # the accepted values of ``allow``
# the temperatures of the samples in a card; the default of the presets is 0.7
_SAMPLE_TEMPERATURES = (0.5, 0.7, 1.0)
_SCANNED_TEXTS = 200
_SCAN_TEMPERATURE = 0.8
# limits of max_new_tokens for the scanned texts and the samples
_MIN_TOKENS = 100
_MAX_TOKENS = 1_000


def check_kinds(allow: Collection[str]) -> frozenset[str]:
    """Check ``allow``, the kinds of findings that do not block publishing, and return these kinds.

    Raises:
        ConfigError: A name is not the name of a kind.
    """
    names = (
        check_list("allow", allow, "['copies']")
        if isinstance(allow, Collection) and not isinstance(allow, str)
        else [allow]
    )
    for name in names:
        if not isinstance(name, str) or name not in _KINDS:
            raise ConfigError(
                f"{quoted(name)} is not a kind of finding that allow accepts."
                f" {did_you_mean(str(name), _KINDS)}"
            )
    return frozenset(names)


def generate_texts(model: Any) -> tuple[list[str], dict[str, Any]]:
    """Return generated texts to scan, and, under the key "samples", pairs of a temperature and a
    text for the card.

    Of the model's generation defaults, only max_new_tokens, words and conditions are used;
    max_new_tokens is brought between 100 and 1,000.
    """
    defaults = model.generation_config
    length = min(max(defaults.max_new_tokens, _MIN_TOKENS), _MAX_TOKENS)
    config = GenerationConfig(
        max_new_tokens=length, words=defaults.words, conditions=defaults.conditions
    )
    scanned = model.generate(
        [""] * _SCANNED_TEXTS, generation_config=config, temperature=_SCAN_TEMPERATURE, seed=0
    )
    samples = [
        (temperature, model.generate_one(generation_config=config, temperature=temperature, seed=0))
        for temperature in _SAMPLE_TEMPERATURES
    ]
    return scanned, {"samples": samples}


def scan(bundle: Bundle, texts: Sequence[str], copy_limit: float) -> dict[str, str]:
    """Return the findings in the generated texts and in the vocabulary, by kind. More than
    ``copy_limit`` copied 20-token windows, as a share of all in the texts, are a finding.
    """
    tokenizer = bundle.tokenizer
    ids = {*range(tokenizer.vocab_size)} - {tokenizer.bos_id, tokenizer.eos_id}
    vocabulary = [tokenizer.decode([token]) for token in sorted(ids)]
    for condition in bundle.conditions:
        vocabulary += [value.label for value in condition.values]
    findings = find_personal_data(texts, vocabulary)
    if bundle.index is None:
        return findings
    encoded = (np.array(tokenizer.encode(text), dtype=np.int64) for text in texts)
    copied = bundle.index.token_copy_rate(encoded)
    if copied is not None and copied > copy_limit:
        findings["copies"] = (
            f"{copied:.0%} of the 20-token windows of its texts are copied, which is more than"
            f" {copy_limit:.0%}"
        )
    return findings


def refuse(findings: Mapping[str, str], allowed: Collection[str]) -> None:
    """Raise if there are findings that are not allowed.

    Raises:
        NotPublished: A finding is not allowed.
    """
    kinds = [kind for kind in findings if kind not in allowed]
    if kinds:
        hint = " Name one: --license apache-2.0 (license=...)." if "license" in kinds else ""
        raise NotPublished(
            f"The model was not published: {'; '.join(findings[kind] for kind in kinds)}.{hint} To"
            f" publish it anyway: --allow {','.join(kinds)} (allow={kinds})."
        )


def find_personal_data(samples: Sequence[str], pieces: Iterable[str]) -> dict[str, str]:
    """Search for personal data in generated texts and in the tokens of a vocabulary. Return, for
    each kind that was found, a description of its matches.
    """
    findings = {}
    vocabulary = list(pieces)
    for kind, (plural, pattern) in PERSONAL_DATA.items():
        odd_pieces = [piece for piece in vocabulary if pattern.search(piece)]
        where = []
        example = ""  # of a match; one in a generated text is preferred
        if odd_pieces:
            where.append(f"{len(odd_pieces)} pieces of the vocabulary")
            example = odd_pieces[0].strip()
        # for each sample with a match, the list of its matches
        matches = list(filter(None, map(pattern.findall, samples)))
        if matches:
            where.insert(0, f"{len(matches)} of {len(samples)} samples")
            example = Counter(chain(*matches)).most_common(1)[0][0]
        if where:
            findings[kind] = f"{plural} in {' and '.join(where)}, as in {example[:60]!r}"
    return findings
