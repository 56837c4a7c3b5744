"""``push_to_hub`` and the card: a trained model is looked over, described and published; and ``fetch``, the way back.

What is published is a copy of the saved folder, with the card, a picture of the learning curve where matplotlib is installed, and
no path of this machine. The copy is what is looked over.
"""

import json
import logging
import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from reviewgen.bundle.layout import CARD, CURVE, NOVELTY, TRAINING
from reviewgen.bundle.read import read_bundle, read_training
from reviewgen.bundle.write import copy_bundle, refuse_existing, write_bundle
from reviewgen.card import Sample, describe, is_written_by_hand, metadata_of, with_license, without_paths, write_card
from reviewgen.config import GenerationConfig
from reviewgen.errors import BundleError, ConfigError, NotPublished, SourceError, did_you_mean, storage_errors
from reviewgen.hub import PushOptions, Remote, look, push, refuse_push
from reviewgen.model.loading import find_folder
from reviewgen.model.privacy import NOTHING_FOUND, Finding, check_kinds, find_details
from reviewgen.names import HubSource, find_revision, parse_hub_id
from reviewgen.pictures import draw_curves, find_curves, refuse_plot, save_figure

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

__all__ = ["fetch", "find_target", "make_card", "publish"]

_TEMPERATURES = (0.5, 0.8, 1.0)  # of the samples in a card
_SAMPLES, _TEMPERATURE = 200, 0.8  # that are looked over
_TOKENS = 100, 1_000  # of a sample, at least and at most, unless it ends before
_CARD_KEYS = ("license", "language", "datasets", "tags")
_logger = logging.getLogger("reviewgen")


def publish(
    model: "ReviewModel",
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
    """Look a model over, and publish it as one commit; ``ReviewModel.push_to_hub`` says what the arguments mean."""
    target = find_target(repo_id, revision)
    allowed = check_kinds(allow)
    if not isinstance(copy_limit, int | float) or not 0 <= copy_limit <= 1:
        raise ConfigError(f"copy_limit is a share, from 0 to 1; got {copy_limit!r}.")
    wishes = _card_wishes(license, model_card_kwargs)
    before = look(target, token)
    kept = _find_card(model, target, before, wishes)
    if not (metadata_of(kept) if kept else wishes).get("license"):
        _refuse([Finding("license", "no license is named, so nobody may use it")], allowed)
    with storage_errors("a copy of the model"), tempfile.TemporaryDirectory(prefix="reviewgen-") as scratch:
        folder = Path(scratch) / target.repo_id.partition("/")[2]
        _copy(model, folder, dtype)
        refuse_push(folder, target, before, options)
        copy = type(model)(read_bundle(folder))
        samples, texts = _draw_samples(copy), _write(copy, _SAMPLES, _TEMPERATURE)
        copied = _copy_rate(copy, texts)
        _look_over(copy, [*texts, *(sample.text for sample in samples)], copied, allowed, copy_limit)
        if kept is None:
            wishes |= {"samples": samples, "copy_rate": copied, "has_curve": _draw_curve(folder)}
            kept = write_card(describe(copy.bundle, source=str(target), megabytes=_megabytes(folder), **wishes))
        (folder / CARD).write_text(kept, encoding="utf-8", errors="backslashreplace")
        message = commit_message or f"Publish {copy.preset} with reviewgen"
        return push(folder, target, before, commit_message=message, token=token, **options)


def fetch(repo_id: str, *, out: Path | None = None, token: str | None = None, force_download: bool = False) -> dict[str, Any]:
    """Fetch a model from the Hub, read it, copy it where that is asked for, and return what there is to say of it; JSON values.

    Raises:
        SourceError: ``repo_id`` is no repository.
        ConfigError, HubError, BundleError, UnknownPlugin: As ``reviewgen.load``.
        OutputExists, StorageError: ``out`` is there, or may not be written.
    """
    source = find_target(repo_id, None)
    if out is not None:
        refuse_existing(out.expanduser())
    folder = find_folder(f"hf://{source}", token=token, force_download=force_download).folder
    bundle = read_bundle(folder, strict=False)
    if out is not None:
        copy_bundle(folder, out.expanduser())
    bits = (bundle.training.get("held_out") or {}).get("bits_per_character")
    return {
        "repository": str(source),
        "preset": bundle.preset,
        "bits_per_character": bits if bits is not None and math.isfinite(bits) else None,
        "megabytes": round(_megabytes(folder), 3),
        "folder": str(out or folder),
    }


def make_card(model: "ReviewModel", **more: Any) -> str:
    """Return a new card of a model, with texts that it writes at three temperatures; ``more`` are attributes of CardFacts.

    Raises:
        ConfigError: A part of the metadata is not text.
    """
    folder = model.bundle.folder
    size = _megabytes(folder) if folder is not None and folder.is_dir() else None
    copied = _copy_rate(model, _write(model, _SAMPLES, _TEMPERATURE))
    return write_card(describe(model.bundle, samples=_draw_samples(model), copy_rate=copied, megabytes=size, **more))


def find_target(repo_id: str, revision: str | None) -> HubSource:
    """Return the repository that is meant.

    Raises:
        SourceError: It is none, or has two revisions.
    """
    found = parse_hub_id(repo_id) if isinstance(repo_id, str) else None
    if found is None:
        raise SourceError(f"{repo_id!r} is no repository on the Hub: it is owner/name, as in ana/music-reviews.")
    return found if revision is None else find_revision(found, revision)


def _card_wishes(license: str | None, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what somebody wants in the metadata of the card.

    Raises:
        ConfigError: A key is unknown, or the license is named twice.
    """
    if not isinstance(more, Mapping | None):
        raise ConfigError(f"model_card_kwargs are names with values, as in {{'language': 'en'}}; got {more!r}.")
    if not isinstance(license, str | None):
        raise ConfigError(f"license is text, as in 'apache-2.0'; got {license!r}.")
    wishes = dict(more or {})
    for key in wishes:
        if key not in _CARD_KEYS:
            raise ConfigError(f"{key!r} is nothing that a card takes. {did_you_mean(str(key), _CARD_KEYS)}")
    if license is not None and wishes.setdefault("license", license) != license:
        raise ConfigError(f"The license is {license!r}, and in model_card_kwargs {wishes['license']!r}: give one of them.")
    return wishes


def _find_card(model: "ReviewModel", target: HubSource, before: Remote, wishes: dict[str, Any]) -> str | None:
    """Return the card that somebody has written, in the repository or beside the model; None where one is to be written.

    What an earlier card says of license, language, data sets and tags is added to the wishes.

    Raises:
        ConfigError: It names another license, or cannot be read.
    """
    for where, card in ((f"the repository {target.repo_id}", before.card), ("the folder", model.bundle.card)):
        if not card:
            continue
        known = metadata_of(card)
        if not is_written_by_hand(card):
            for key, value in known.items():
                wishes.setdefault(key, value)
            continue
        license = wishes.get("license")
        if license is not None and known.get("license", license) not in (license, [license]):
            raise ConfigError(
                f"The card of {where} was written by somebody, so it is kept; it names the license {known['license']!r}, "
                f"not {license!r}: change one of them."
            )
        lost = sorted(key for key in wishes if key != "license" and key not in known)
        _logger.info("The card of %s is kept as it is%s.", where, f", without {', '.join(lost)}" if lost else "")
        return card if license is None or "license" in known else with_license(card, license)
    return None


def _draw_samples(model: "ReviewModel") -> list[Sample]:
    return [Sample(temperature, text) for temperature in _TEMPERATURES for text in _write(model, 1, temperature)]


def _write(model: "ReviewModel", number: int, temperature: float) -> list[str]:
    """Return texts that go by the model alone; of its generation defaults by the length only."""
    least, most = _TOKENS
    longest = min(max(model.generation_config.max_new_tokens, least), most)
    settings = GenerationConfig(max_new_tokens=longest, temperature=temperature)
    return [found.text for found in model.generate_each(num_return_sequences=number, seed=0, generation_config=settings)]


def _look_over(
    model: "ReviewModel", texts: Sequence[str], copied: float | None, allowed: Collection[str], copy_limit: float
) -> None:
    """Raise where a model that has written these texts, and copied so much of them, should not be published as it is.

    Raises:
        NotPublished: Something was found that nobody has allowed.
    """
    tokenizer, index = model.tokenizer, model.bundle.index
    ids = (each for each in range(tokenizer.vocab_size) if each not in (tokenizer.bos_id, tokenizer.eos_id))
    labels = (value["label"] for condition in model.conditions.to_json() for value in condition["values"])
    findings = find_details(texts, [*(tokenizer.decode([each]) for each in ids), *labels])
    if copied is not None and copied > copy_limit:
        findings.append(Finding("copies", f"{copied:.0%} of what it writes is copied, which is more than {copy_limit:.0%}"))
    if index is not None and index.form == "exact":
        findings.append(Finding("text", f"{NOVELTY} holds the whole training text"))
    _refuse(findings, allowed)
    _logger.info(
        "Looked over %d samples and %d pieces of the vocabulary: %s; %s. This is a check, not a guarantee.",
        len(texts),
        tokenizer.vocab_size,
        "; ".join(f"{finding.words} (allowed)" for finding in findings) or NOTHING_FOUND,
        "nothing is known of copying" if copied is None else f"a copy rate of {copied:.1%}",
    )


def _refuse(findings: Sequence[Finding], allowed: Collection[str]) -> None:
    left = [finding for finding in findings if finding.kind not in allowed]
    if left:
        kinds = [finding.kind for finding in left]
        cure = " Name one: --license apache-2.0 (license=...)." if "license" in kinds else ""
        raise NotPublished(
            f"The model was not published: {'; '.join(finding.words for finding in left)}.{cure} To publish it all the same: "
            f"--allow {','.join(kinds)} (allow={kinds})."
        )


def _copy_rate(model: "ReviewModel", texts: Sequence[str]) -> float | None:
    """Return the share of 20-token windows that stand in the training text; None where nobody knows."""
    import numpy as np

    index = model.bundle.index
    if index is None:
        return None
    return index.copy_rate(np.array(model.tokenizer.encode(text), dtype=np.int64) for text in texts)


def _copy(model: "ReviewModel", folder: Path, dtype: str | None) -> None:
    """Write a model's folder, byte for byte as it was read where it was; without paths of this machine."""
    bundle = model.bundle
    if bundle.folder is not None and not bundle.weights.is_exposed and dtype is None:
        if not bundle.folder.is_dir():
            raise BundleError(
                f"{bundle.folder}, from which the model was loaded, is gone: give dtype='float32' to write it anew."
            )
        copy_bundle(bundle.folder, folder)
    else:
        write_bundle(bundle, folder, dtype=dtype or "float32")
    file = folder / TRAINING
    training = json.loads(file.read_text(encoding="utf-8"))
    if (public := without_paths(training)) != training:
        file.write_text(json.dumps(public, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")


def _draw_curve(folder: Path) -> bool:
    """Draw the learning curve beside the card, and return whether there is one."""
    try:
        refuse_plot(folder / CURVE)
        save_figure(draw_curves([find_curves(read_training(folder), folder.name)]), folder / CURVE)
    except (BundleError, ConfigError) as error:  # it has none, as a blend; or matplotlib is not installed
        _logger.info("The card has no picture of the learning curve: %s", error)
        return False
    return True


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6
