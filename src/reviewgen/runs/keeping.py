"""What a trained model keeps when it is trained further, and which models cannot be: refused before any work."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from reviewgen.blending.model import Blend
from reviewgen.config import from_dict, to_dict
from reviewgen.errors import ConfigError
from reviewgen.model import ReviewModel
from reviewgen.protocols import CountTrained

__all__ = ["refuse_other_function", "refuse_other_tokenizer", "refuse_untrainable"]

_PROBE_TOKENS = 24
_ALIKE = 1e-3  # difference in logits between two ways to compute the same


def refuse_untrainable(trained: ReviewModel) -> None:
    """Raise where a model cannot learn on.

    Raises:
        ConfigError: It is a blend, or counts, or has no weights that a gradient moves.
    """
    model, name = trained.bundle.model, trained.bundle.source or f"This {trained.preset} model"
    if isinstance(model, Blend):
        raise ConfigError(
            f"{name} is a blend, which has nothing of its own to train: train one of its models further, and blend them again."
        )
    if isinstance(model, CountTrained):
        raise ConfigError(
            f"{name} has counted its texts, and what it keeps are probabilities, to which no count can be added: train another "
            f"{trained.preset} on the new texts, and put the two together with reviewgen blend."
        )
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{name} is no torch module, so it cannot be trained further.")


def refuse_other_tokenizer(wanted: Any, kept: Any) -> None:
    """Raise where a tokenizer's settings are not those of the one that is kept.

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


def refuse_other_function(kind: Any, settings: dict[str, Any], trained: Any, changed: Sequence[str]) -> None:
    """Raise where changed settings ask for other tensors, or make the same tensors predict something else.

    So dropout and a faster layer may be changed, and a size or an activation may not, whatever a plugin calls them.

    Args:
        kind: The model's class.
        settings: All settings of the model, but for vocab_size.
        trained: The model.
        changed: The names of those that somebody has set.

    Raises:
        ConfigError: The trained weights do not go with the settings.
    """
    if not changed:
        return
    config = from_dict(kind.Config, {"vocab_size": trained.config.vocab_size} | settings)
    why = _other_tensor(kind, config, trained) or _other_logits(kind, config, trained)
    if why:
        said = ", ".join(f"model.{name}={settings[name]}" for name in changed)
        raise ConfigError(
            f"The trained weights do not go with {said}: {why}. Of a model that is trained further only such settings may be "
            "changed as leave its predictions alone, as dropout does."
        )


def _other_tensor(kind: Any, config: Any, trained: Any) -> str | None:
    """Return how the tensors of a config differ from the trained ones, if they do."""
    try:
        with torch.device("meta"):  # no memory for a size that may be a slip
            wanted = {name: tuple(tensor.shape) for name, tensor in kind(config).state_dict().items()}
    except (RuntimeError, OverflowError) as error:
        return str(error).splitlines()[0]
    there = {name: tuple(tensor.shape) for name, tensor in trained.state_dict().items()}
    for name in [*wanted, *there]:
        if wanted.get(name) != there.get(name):
            return f"{name} would be {_spell(wanted.get(name))}, and is {_spell(there.get(name))}"
    return None


def _spell(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape)) or "a number"


def _other_logits(kind: Any, config: Any, trained: Any) -> str | None:
    """Say so where a model of the config predicts something else with the trained weights."""
    model = kind(config)
    model.load_state_dict(trained.state_dict())
    size = config.vocab_size
    ids = torch.arange(_PROBE_TOKENS).unsqueeze(0) * 7 % size  # (1, T)
    with torch.inference_mode():
        ours, theirs = (each.eval()(ids, each.initial_state(1))[0] for each in (model, trained))
    return None if torch.allclose(ours, theirs, rtol=_ALIKE, atol=_ALIKE) else "it would predict something else"
