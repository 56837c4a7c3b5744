"""What may change when a trained model is trained further, and which models cannot be; checked before any work.

The model keeps its tokenizer, its conditions, its size and its generation defaults; only its weights change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from reviewgen.blending.model import Blend
from reviewgen.config import VOCABULARY_FIELDS, from_dict, to_dict
from reviewgen.errors import ConfigError, first_line, quoted
from reviewgen.model import ReviewModel
from reviewgen.protocols import CountTrained

_PROBE_TOKENS = 24
_TOLERANCE = 1e-3  # difference between the logits of two implementations of the same function


def keep_reading(trained: ReviewModel, reading: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to read the corpus: with the conditions of the trained model, and at least the cleaning of its training.

    Args:
        trained: The model.
        reading: The fields of a DataConfig that the user has chosen.

    Raises:
        ConfigError: The model was not trained with one of the conditions.
    """
    names = trained.conditions.names
    if new := [name for name in reading["conditions"] if name not in names]:
        raise ConfigError(
            f"A model that is trained further keeps its conditions ({', '.join(names) or 'none'}), so {quoted(new[0])} cannot be "
            "one of them: train a model from scratch."
        )
    before = trained.training.get("data", {})
    cleaning = {name: reading[name] or bool(before.get(name)) for name in ("lowercase", "strip_markdown", "fix_encoding")}
    return {**reading, **cleaning, "clean": reading["clean"] and before.get("clean", True), "conditions": names}


def refuse_untrainable(trained: ReviewModel) -> None:
    """Raise if a model cannot be trained further.

    Raises:
        ConfigError: It is a blend, was trained by counting, or is not a torch module.
    """
    model, name = trained.bundle.model, trained.bundle.source or f"This {trained.preset} model"
    if isinstance(model, Blend):
        raise ConfigError(
            f"{name} is a blend, which has no weights of its own to train: train one of its models further, and blend them again."
        )
    if isinstance(model, CountTrained):
        raise ConfigError(
            f"{name} was trained by counting and keeps probabilities, to which no count can be added: train another "
            f"{trained.preset} on the new texts, and combine the two with reviewgen blend."
        )
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name} is not a torch module, so it cannot be trained further.")


def refuse_other_tokenizer(wanted: Any, kept: Any) -> None:
    """Raise if a tokenizer's settings differ from those of the tokenizer that is kept.

    Raises:
        ConfigError: One differs.
    """
    before = to_dict(kept)
    for name, value in to_dict(wanted).items():
        if value != before[name]:
            raise ConfigError(
                f"A model that is trained further keeps its tokenizer, of {name}={before[name]}, so tokenizer.{name} cannot be "
                f"{value}: leave it out, or train a model from scratch."
            )


def refuse_other_predictions(model_class: Any, settings: dict[str, Any], trained: Any, changed: Sequence[str]) -> None:
    """Raise if changed settings need other tensors, or make the same tensors predict something else.

    So dropout and a faster layer may be changed, and a size or an activation may not, whatever a plugin calls them.

    Args:
        model_class: The model's class.
        settings: All settings of the model, except those that its tokenizer decides.
        trained: The model.
        changed: The names of the settings that the user has set.

    Raises:
        ConfigError: The trained weights do not fit the settings.
    """
    if not changed:
        return
    kept = to_dict(trained.config)
    ids = {name: kept[name] for name in VOCABULARY_FIELDS if name in kept}
    config = from_dict(model_class.Config, settings | ids)
    reason = _compare_tensors(model_class, config, trained) or _compare_logits(model_class, config, trained)
    if reason:
        values = ", ".join(f"model.{name}={settings[name]}" for name in changed)
        raise ConfigError(
            f"The trained weights do not fit {values}: {reason}. When a model is trained further, only settings that do not "
            "change its predictions can differ, such as dropout."
        )


def _compare_tensors(model_class: Any, config: Any, trained: Any) -> str | None:
    """Return how the tensors of a config differ from the trained ones, if they do."""
    try:
        with torch.device("meta"):  # no memory for a size that may be a typing error
            wanted = {name: tuple(tensor.shape) for name, tensor in model_class(config).state_dict().items()}
    except (RuntimeError, OverflowError) as error:
        return first_line(error)
    present = {name: tuple(tensor.shape) for name, tensor in trained.state_dict().items()}
    for name in [*wanted, *present]:
        if wanted.get(name) != present.get(name):
            return f"{name} would be {_format_shape(wanted.get(name))}, and is {_format_shape(present.get(name))}"
    return None


def _format_shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "a number"


def _compare_logits(model_class: Any, config: Any, trained: Any) -> str | None:
    """Return a reason if a model of the config predicts something else with the trained weights."""
    model = model_class(config)
    model.load_state_dict(trained.state_dict())
    size = config.vocab_size
    ids = torch.arange(_PROBE_TOKENS).unsqueeze(0) * 7 % size  # (1, T)
    with torch.inference_mode():
        changed, original = (each.eval()(ids, each.initial_state(1))[0] for each in (model, trained))
    is_same = torch.allclose(changed, original, rtol=_TOLERANCE, atol=_TOLERANCE)
    return None if is_same else "it would predict something else"
