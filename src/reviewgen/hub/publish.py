"""``push_to_hub`` and the model card: a trained model is scanned for personal data and copied text, described and published.

What is published is a copy of the saved folder, with the card, a plot of the learning curve where matplotlib is installed, and
no path of this machine. The copy is what is scanned.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from reviewgen.card import Sample, describe, is_written_by_hand, metadata_of, with_license, without_paths, write_card
from reviewgen.config import MAX_RECORD, GenerationConfig, read_json
from reviewgen.errors import BundleError, ConfigError, NotPublished, did_you_mean, quoted, storage_errors
from reviewgen.generation import Generator, Request, Speller
from reviewgen.hub.locate import parse_repository
from reviewgen.hub.privacy import NOTHING_FOUND, Finding, check_kinds, find_personal_data
from reviewgen.hub.pull import megabytes
from reviewgen.hub.push import PushOptions, Remote, check_push, inspect_repository, push
from reviewgen.model import Bundle, read_bundle
from reviewgen.model.layout import CARD, CURVE, NOVELTY, TRAINING, write_manifest
from reviewgen.model.read import read_training
from reviewgen.model.write import copy_bundle, write_bundle
from reviewgen.names import HubSource
from reviewgen.pictures import draw_curves, find_curves, refuse_plot, save_figure
from reviewgen.scratch import temporary_folder

_TEMPERATURES = (0.5, 0.7, 1.0)  # of the samples in a card; 0.7 is the default of the presets
_SCANNED, _TEMPERATURE = 200, 0.8  # texts, and at which temperature
_MIN_TOKENS, _MAX_TOKENS = 100, 1_000  # between these, the max_new_tokens of a sample
_CARD_KEYS = ("license", "language", "datasets", "tags", "space")
_logger = logging.getLogger("reviewgen")


@dataclass(frozen=True)
class _Scan:
    """The texts that a model generated to be scanned, samples for its card, and the token copy rate of the texts."""

    texts: list[str]
    samples: list[Sample]
    token_copy_rate: float | None  # None where there is no index


def publish(
    bundle: Bundle,
    repo_id: str,
    *,
    revision: str | None,
    token: str | bool | None,
    commit_message: str | None,
    license: str | None,
    model_card_kwargs: Mapping[str, Any] | None,
    allow: Collection[str],
    copy_limit: float,
    dtype: str | None,
    **options: Unpack[PushOptions],
) -> str:
    """Scan a model, and publish it as one commit; ``ReviewModel.push_to_hub`` documents the arguments."""
    target = parse_repository(repo_id, revision)
    allowed = check_kinds(allow)
    if not isinstance(copy_limit, int | float) or not 0 <= copy_limit <= 1:
        raise ConfigError(f"copy_limit must be a share from 0 to 1; got {quoted(copy_limit)}.")
    metadata = _card_metadata(license, model_card_kwargs)
    before = inspect_repository(target, token)
    card = _existing_card(bundle, target, before, metadata)
    if not (metadata_of(card) if card else metadata).get("license"):
        _refuse([Finding("license", "no license is named, so nobody may use it")], allowed)
    with storage_errors("a copy of the model"), temporary_folder() as scratch:
        folder = scratch / target.repo_id.partition("/")[2]
        _copy(bundle, folder, dtype)
        check_push(folder, target, before, options)
        copy = read_bundle(folder)
        scan = _generate(copy)
        _check(copy, scan, allowed, copy_limit)
        if card is None:
            details = {"samples": scan.samples, "token_copy_rate": scan.token_copy_rate, "has_curve": _plot_curve(folder)}
            card = write_card(describe(copy, source=str(target), megabytes=megabytes(folder), **metadata, **details))
        (folder / CARD).write_text(card, encoding="utf-8", errors="backslashreplace")
        message = commit_message or f"Publish {copy.preset} with reviewgen"
        return push(folder, target, before, commit_message=message, token=token, **options)


def make_card(bundle: Bundle, generator: Generator, **details: Any) -> str:
    """Return a new card of a model, with texts that it generates at three temperatures.

    Args:
        bundle: The model.
        generator: Its generator.
        details: Further attributes of CardFacts.

    Raises:
        ConfigError: A value of the metadata is not text.
    """
    folder = bundle.folder
    size = megabytes(folder) if folder is not None and folder.is_dir() else None
    scan = _generate(bundle, generator)
    return write_card(describe(bundle, samples=scan.samples, token_copy_rate=scan.token_copy_rate, megabytes=size, **details))


def _card_metadata(license: str | None, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the metadata of the card that the user gave.

    Raises:
        ConfigError: A key is unknown, or the license is given twice.
    """
    if not isinstance(more, Mapping | None):
        raise ConfigError(f"model_card_kwargs must be a mapping, as in {{'language': 'en'}}; got {quoted(more)}.")
    if not isinstance(license, str | None):
        raise ConfigError(f"license must be a string, as in 'apache-2.0'; got {quoted(license)}.")
    metadata = dict(more or {})
    for key in metadata:
        if key not in _CARD_KEYS:
            raise ConfigError(f"{quoted(key)} is not a key of a card. {did_you_mean(str(key), _CARD_KEYS)}")
    if license is not None and metadata.setdefault("license", license) != license:
        raise ConfigError(
            f"The license is {quoted(license)}, and in model_card_kwargs {quoted(metadata['license'])}: give one of them."
        )
    return metadata


def _existing_card(bundle: Bundle, target: HubSource, before: Remote, metadata: dict[str, Any]) -> str | None:
    """Return the card that a user wrote or edited, in the repository or beside the model; None where a new one is written.

    The license, language, datasets and tags of a generated card are added to the metadata.

    Raises:
        ConfigError: The card names another license, or cannot be parsed.
    """
    for where, card in ((f"the repository {target.repo_id}", before.card), ("the folder", bundle.card)):
        if not card:
            continue
        known = metadata_of(card)
        if known.get("space") != target.repo_id:
            known.pop("space", None)  # of a model that this one was copied from
        if not is_written_by_hand(card):
            for key, value in known.items():
                metadata.setdefault(key, value)
            continue
        license = metadata.get("license")
        if license is not None and known.get("license", license) not in (license, [license]):
            raise ConfigError(
                f"The card of {where} was edited by hand, so it is kept; it names the license {quoted(known['license'])}, "
                f"not {quoted(license)}: change one of them."
            )
        lost = sorted(key for key in metadata if key != "license" and key not in known)
        _logger.info("The card of %s is kept as it is%s.", where, f", without {', '.join(lost)}" if lost else "")
        return card if license is None or "license" in known else with_license(card, license)
    return None


def _generate(bundle: Bundle, generator: Generator | None = None) -> _Scan:
    """Generate the texts to scan and the samples of the card; of the generation defaults only length and words are used."""
    speller = Speller(bundle.tokenizer, bundle.lexicon)
    generator = generator or Generator(bundle.weights.stepper(), bundle.tokenizer, speller=speller, index=bundle.index)
    length = min(max(bundle.generation.max_new_tokens, _MIN_TOKENS), _MAX_TOKENS)
    prefix = bundle.conditions.encode(bundle.generation.conditions) if bundle.conditions else ()

    def texts(number: int, temperature: float) -> list[str]:
        config = GenerationConfig(max_new_tokens=length, temperature=temperature, words=bundle.generation.words)
        return [row.text for row in generator.generate(Request([""] * number, config, seed=0, prefix=prefix))]

    scanned = texts(_SCANNED, _TEMPERATURE)
    samples = [Sample(temperature, text) for temperature in _TEMPERATURES for text in texts(1, temperature)]
    return _Scan(scanned, samples, _token_copy_rate(bundle, scanned))


def _token_copy_rate(bundle: Bundle, texts: Sequence[str]) -> float | None:
    """Return the share of the texts' 20-token windows that occur in the training text; None where there is no index."""
    if bundle.index is None:
        return None
    return bundle.index.token_copy_rate(np.array(bundle.tokenizer.encode(text), dtype=np.int64) for text in texts)


def _check(bundle: Bundle, scan: _Scan, allowed: Collection[str], copy_limit: float) -> None:
    """Raise where a model should not be published as it is.

    Raises:
        NotPublished: The scan found something that is not allowed.
    """
    tokenizer, index = bundle.tokenizer, bundle.index
    ids = (token for token in range(tokenizer.vocab_size) if token not in (tokenizer.bos_id, tokenizer.eos_id))
    conditions = bundle.conditions.to_json() if bundle.conditions else []
    labels = (value["label"] for condition in conditions for value in condition["values"])
    texts = [*scan.texts, *(sample.text for sample in scan.samples)]
    findings = find_personal_data(texts, [*(tokenizer.decode([token]) for token in ids), *labels])
    rate = scan.token_copy_rate
    if rate is not None and rate > copy_limit:
        findings.append(
            Finding("copies", f"{rate:.0%} of the 20-token windows of its texts are copied, which is more than {copy_limit:.0%}")
        )
    if index is not None and index.form == "exact":
        findings.append(Finding("text", f"{NOVELTY} contains the whole training text"))
    _refuse(findings, allowed)
    _logger.info(
        "Scanned %d samples and %d pieces of the vocabulary: %s; %s. This is a check, not a guarantee.",
        len(texts),
        tokenizer.vocab_size,
        "; ".join(f"{finding.description} (allowed)" for finding in findings) or NOTHING_FOUND,
        "the token copy rate is unknown" if rate is None else f"a token copy rate of {rate:.1%}",
    )


def _refuse(findings: Sequence[Finding], allowed: Collection[str]) -> None:
    refused = [finding for finding in findings if finding.kind not in allowed]
    if refused:
        kinds = [finding.kind for finding in refused]
        hint = " Name one: --license apache-2.0 (license=...)." if "license" in kinds else ""
        raise NotPublished(
            f"The model was not published: {'; '.join(finding.description for finding in refused)}.{hint} To publish it anyway: "
            f"--allow {','.join(kinds)} (allow={kinds})."
        )


def _copy(bundle: Bundle, folder: Path, dtype: str | None) -> None:
    """Write a model's folder, byte for byte as it was loaded where nothing changed; without paths of this machine."""
    if bundle.folder is not None and not bundle.weights.is_exposed and dtype is None:
        if not bundle.folder.is_dir():
            raise BundleError(
                f"{bundle.folder}, from which the model was loaded, no longer exists: give dtype='float32' to write it again."
            )
        copy_bundle(bundle.folder, folder, digests=bundle.digests)
    else:
        write_bundle(bundle, folder, dtype=dtype or "float32")
    file = folder / TRAINING
    training = read_json(file, MAX_RECORD)
    if (public := without_paths(training)) != training:
        file.write_text(json.dumps(public, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")
        write_manifest(folder)


def _plot_curve(folder: Path) -> bool:
    """Plot the learning curve beside the card; return whether there is one."""
    try:
        refuse_plot(folder / CURVE)
        save_figure(draw_curves([find_curves(read_training(folder), folder.name)]), folder / CURVE)
    except (BundleError, ConfigError) as error:  # a blend has none; or matplotlib is not installed
        _logger.info("The card has no plot of the learning curve: %s", error)
        return False
    return True
