"""The model card: the template ``card.md.j2``, filled with the record of a training.

The last line of a generated card is a comment with a digest of the lines above it. If a card has no
such line, or the digest does not match, a user has written or edited the card, and the card is
kept. Any other card may be generated again.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewgen.blending.config import BlendConfig
from reviewgen.config.names import parse_hub_id
from reviewgen.config.settings import check_mapping, to_dict
from reviewgen.config.training import COUNTING_SETTINGS
from reviewgen.errors import BundleError, ConfigError, did_you_mean, first_line, quoted
from reviewgen.rates import MIN_CHARACTERS, describe_copies, describe_membership
from reviewgen.saving.layout import Bundle
from reviewgen.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

# the keys of the metadata that a user may give, each with an example for messages
_EXAMPLES = {
    "license": "apache-2.0",
    "language": "en",
    "datasets": "owner/name",
    "tags": "music",
    "space": "owner/name",
}
_TASK = "text-generation"
# Settings of models that the card does not list: the alphabet (it has the characters of the
# tokenizer), and the settings of a blend that the card describes in words.
_LEFT_OUT = ("alphabet", "weights", "gate", "models")
_SPACE = re.compile(r"/spaces/(?P<space>[\w.-]+/[\w.-]+)\)")  # in a Markdown link
# the license in the front matter of a card
_LICENSE = re.compile(r"\s*---\n.*?^license: *(\S[^\n]{0,80})$.*?^---", re.DOTALL | re.MULTILINE)
# The words of this line must not change: existing cards on the Hub and in saved folders have the
# line.
_MARK = re.compile(
    r"<!-- written by reviewgen from what it recorded; (?P<digest>[0-9a-f]{16}) -->\n?\Z"
)


def card_text(bundle: Bundle, *, source: str | None = None, **details: Any) -> str:
    """Return the card of a trained model: the Hub's YAML front matter, followed by Markdown.

    Args:
        bundle: The model.
        source: The argument of ``reviewgen.load`` in the card's code snippet; None for a local
            folder.
        details: Further facts for the card; None means unknown:
            license, language, datasets, tags: The metadata for the Hub.
            space: The Space on the Hub with a page that runs the model, as in "owner/name".
            samples: Generated texts, as pairs of a temperature and a text.
            megabytes: The size of the folder.
            curve: The file name of a plot of the learning curve.

    Raises:
        ConfigError: A value of the metadata is not text.
        BundleError: The record in training.json is damaged.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from jinja2 import TemplateError

    # imported here, since it imports torch, which is not needed to generate
    from reviewgen.protocols.abilities import count_parameters

    metadata = check_metadata(None, {key: details[key] for key in _EXAMPLES if key in details})
    training = without_paths(bundle.training)
    name = (source or bundle.preset).removeprefix("hf://")
    try:
        corpus = (training.get("data") or {}).get("source") or "an unnamed corpus"
        repository = parse_hub_id(corpus) if corpus.startswith("hf://") else None
        results = _results(training, corpus.removeprefix("hf://"))
        tags = metadata.get("tags") or []
        if isinstance(tags, str):
            tags = [tags]
        card_data = ModelCardData(
            license=metadata.get("license"),
            language=metadata.get("language"),
            datasets=metadata.get("datasets") or ([repository.repo_id] if repository else None),
            library_name="reviewgen",
            pipeline_tag=_TASK,
            tags=["reviewgen", bundle.model_plugin.name, *tags],
            model_name=name if results else None,
            eval_results=results or None,
            reviewgen={"preset": bundle.preset, **_measured_bits(training)},
        )
        content = ModelCard.from_template(
            card_data,
            str(Path(__file__).with_name("card.md.j2")),
            bundle=bundle,
            training=training,
            name=name,
            source=source,
            version=__version__,
            parameters=count_parameters(bundle.model),
            settings={
                **_model_settings(bundle.model.config),
                "tokenizer": to_dict(bundle.tokenizer_config),
                "training": _training_settings(training, bundle.model),
            },
            fence=_fence,
            hub_address=hub_address,
            copies=describe_copies(training.get("novelty") or {}),
            membership=describe_membership(training.get("novelty") or {}),
            **details,
        )
    # training.json may have been written by a third party
    except (LookupError, TypeError, ValueError, AttributeError, TemplateError) as error:
        raise BundleError(
            f"No card can be written: training.json is damaged ({type(error).__name__}: {error})."
        ) from None
    card = f"{content}\n\n"
    return f"{card}<!-- written by reviewgen from what it recorded; {_digest(card)} -->\n"


def _model_settings(config: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of a model, or of each model of a blend, by the label of the model on the
    card. Those of ``_LEFT_OUT`` are left out.
    """
    groups = {"model": to_dict(config)}
    if isinstance(config, BlendConfig):
        numbered = enumerate(config.models, start=1)
        groups = {f"model {number}, {part['name']}": part["config"] for number, part in numbered}
    for label, settings in groups.items():
        groups[label] = {key: settings[key] for key in settings if key not in _LEFT_OUT}
    return groups


def _training_settings(training: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """Return the training settings that had an effect."""
    from reviewgen.protocols.model import CountTrained  # imports torch

    settings = training.get("config") or {}
    if isinstance(model, CountTrained):
        settings = {key: settings[key] for key in COUNTING_SETTINGS if key in settings}
    return settings


def _results(training: Mapping[str, Any], corpus: str) -> "list[EvalResult]":
    """Return the metrics for the Hub: bits per character of held-out text, and the copy rate of
    generated text. Metrics that were not measured are left out, and so is a copy rate that was
    measured on too few characters.
    """
    from huggingface_hub import EvalResult

    def result(kind: str, name: str, value: float, split: str | None) -> EvalResult:
        """Return a metric of the given kind, measured on a split of the corpus."""
        return EvalResult(
            _TASK, corpus, corpus, kind, round(value, 4), dataset_split=split, metric_name=name
        )

    results = []
    held_out = training.get("held_out") or {}
    bits = held_out.get("bits_per_character")
    if bits is not None:
        name = "bits per character, held out"
        results.append(result("bits_per_character", name, bits, held_out.get("split")))
    novelty = training.get("novelty") or {}
    rate = novelty.get("copy_rate")
    characters = novelty.get("copy_rate_characters")
    if rate is not None and (characters is None or characters >= MIN_CHARACTERS):
        spans = f"spans of {novelty.get('copy_characters')} characters or more of the training text"
        name = f"share of the characters of generated texts in {spans}"
        results.append(result("copy_rate", name, rate, "train"))
    return results


def _measured_bits(training: Mapping[str, Any]) -> dict[str, float]:
    """Return the bits per character of held-out text by their name, if they were measured."""
    bits = (training.get("held_out") or {}).get("bits_per_character")
    return {} if bits is None else {"bits_per_character": round(bits, 4)}


def eval_results(training: Mapping[str, Any]) -> bytes | None:
    """Return the metrics as a file of the Hub's folder ``.eval_results``. Return None if nothing
    was measured, or if the model was not trained on a dataset of the Hub, which each result names.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    source = (training.get("data") or {}).get("source") or ""
    dataset = parse_hub_id(source) if source.startswith("hf://") else None
    if dataset is None:
        return None
    entries = [
        EvalResultEntry(
            dataset_id=dataset.repo_id,
            task_id=result.metric_type,
            value=result.metric_value,
            notes=f"{result.metric_name}; {result.dataset_split} split; lower is better;"
            f" reviewgen {__version__}",
        )
        for result in _results(training, dataset.repo_id)
    ]
    return yaml_dump(eval_result_entries_to_yaml(entries)).encode() if entries else None


def _fence(text: str) -> str:
    """Return a code fence that is longer than every run of backticks in a text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def hub_address(path: str) -> str:
    """Return the address of a page on the Hub."""
    from huggingface_hub.constants import ENDPOINT  # set by HF_ENDPOINT

    return f"{ENDPOINT}/{path}"


def check_metadata(license: Any, more: Any) -> dict[str, Any]:
    """Check the metadata that the user gave for a card, and return the metadata and the license as
    one dictionary.

    Raises:
        ConfigError: Keys are unknown, values are not text, or two different licenses are given. The
            message names all problems.
    """
    metadata = (
        {} if more is None else check_mapping("model_card_kwargs", more, "{'language': 'en'}")
    )
    problems = []
    # adds the license to the metadata, unless they have one
    if license is not None and metadata.setdefault("license", license) != license:
        problems.append(
            f"The license is {quoted(license)}, and in model_card_kwargs"
            f" {quoted(metadata['license'])}: give one."
        )
    for key, value in metadata.items():
        if key not in _EXAMPLES:
            problems.append(f"{quoted(key)} is not a key of a card. {did_you_mean(key, _EXAMPLES)}")
        elif problem := odd_text(key, value, _EXAMPLES[key]):
            problems.append(problem)
    if problems:
        raise ConfigError(" ".join(problems))
    return metadata


def odd_text(name: str, value: Any, example: str) -> str | None:
    """Check a value that should be a string, a list of strings, or None. Return a sentence about
    the problem, or None if there is no problem. ``name`` and ``example`` are for the sentence.
    """
    if value is None:
        return None
    for text in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(text, str) or not text.strip() or not text.isprintable():
            return (
                f"{name} must be a string, or a list of strings, as in {quoted(example)}; got"
                f" {quoted(text)}."
            )
    return None


def is_written_by_hand(card: str) -> bool:
    """Return whether a card was written or edited by a user. YAML front matter alone does not count
    as a card.
    """
    text = re.sub(r"\A\s*---\n.*?\n---\s*", "", card, count=1, flags=re.DOTALL)
    return not _is_unedited(card) and text.strip() != ""


def metadata_of(card: str) -> dict[str, Any]:
    """Return the ``license``, ``language``, ``datasets`` and ``tags`` of a card, and the ``space``
    that the card links to. The tags that every generated card has are left out.

    Raises:
        ConfigError: The card's front matter is not valid YAML.
    """
    data = parse_card(card).data
    metadata = {key: data.get(key) for key in ("license", "language", "datasets", "tags")}
    if isinstance(metadata["tags"], list) and _is_unedited(card):
        # the first two tags of a generated card are "reviewgen" and the name of the model's plugin
        metadata["tags"] = metadata["tags"][2:]
    if link := _SPACE.search(card):
        metadata["space"] = link["space"]
    return {key: value for key, value in metadata.items() if value}


def parse_card(card: str) -> "ModelCard":
    """Parse a card, so that its front matter can be changed and validated.

    Raises:
        ConfigError: The card's front matter is not valid YAML.
    """
    from huggingface_hub import ModelCard

    try:
        return ModelCard(card, ignore_metadata_errors=True)
    except Exception as error:  # raised by the YAML library or the client
        raise ConfigError(
            f"The YAML front matter of the card (README.md) cannot be parsed: {first_line(error)}."
        ) from None


def _is_unedited(card: str) -> bool:
    """Return whether the last line of a card has the digest of the lines above it."""
    mark = _MARK.search(card)
    return mark is not None and mark["digest"] == _digest(card[: mark.start()])


def _digest(text: str) -> str:
    """Return the digest of a card, which its last line has; ``text`` is the lines above it."""
    # line endings and trailing spaces do not change the digest
    plain = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return hashlib.sha256(plain.encode("utf-8", "backslashreplace")).hexdigest()[:16]


def brief_facts(bundle: Bundle) -> list[list[str]]:
    """Return the facts that a page shows about its model, as pairs of a label and a value."""
    held_out = bundle.training.get("held_out") or {}
    data = bundle.training.get("data") or {}
    bits = held_out.get("bits_per_character")
    license = _LICENSE.match(bundle.card)  # group 1 is its name
    facts = {
        "Preset": bundle.preset,
        "Bits per character": None if bits is None else f"{bits:.3f}, held out",
        "Data": file_name(data.get("source") or ""),
        "License": license and license[1].strip("'\""),
        "Copy rate": describe_copies(bundle.training.get("novelty") or {}),
        "Membership": describe_membership(bundle.training.get("novelty") or {}),
        "Texts": "synthetic: not written by a person",
    }
    return [[label, value] for label, value in facts.items() if value]


def without_paths(value: Any, key: str = "") -> Any:
    """Return a training record in which the path of each source is replaced by its file name.

    The function calls itself for each value in the record; ``key`` is the key of the value.
    """
    if isinstance(value, dict):
        return {name: without_paths(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str) and key.endswith("source"):
        return file_name(value)
    return value


def file_name(source: str) -> str:
    """Return the last part of a source that is a path. A repository (hf://) is returned
    unchanged.
    """
    if source.startswith("hf://"):
        return source
    return source.replace("\\", "/").rstrip("/").rpartition("/")[2]
