"""Trains a model in two steps, saves it, loads it in a fresh process, and compares texts and logits."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import nn

from reviewgen.api import load, train
from reviewgen.model import ReviewModel
from reviewgen.protocols import CountTrained, SupportsStep
from reviewgen.registry import find_stepper
from reviewgen.testing.fresh_process import PROMPTS, TEXTS, assert_same_elsewhere, generate
from reviewgen.testing.models import TOLERANCE, assert_close
from reviewgen.testing.subject import Subject

__all__ = ["Trial"]


class Trial:
    """A short training of a preset, and what follows from it."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self._subject = subject
        self._folder = folder / "model"
        self._model: ReviewModel | None = None

    def train(self) -> str:
        """Train for two steps; a count model counts the texts."""
        settings = {} if self._subject.preset().parts else dict(self._subject.small_settings())
        steps = None if self._is_counted else 2
        self._model = train(self._subject.preset_name, list(TEXTS), progress=False, seed=0, model=settings, steps=steps)
        bits = self._model.training.get("held_out", {}).get("bits_per_character")
        what = "counted" if self._is_counted else "2 steps on"
        return f"{what} {len(TEXTS)} texts" + (f", {bits:.2f} bits per character" if isinstance(bits, float) else "")

    @cached_property
    def _is_counted(self) -> bool:
        from reviewgen.registry import find_model

        return issubclass(find_model(self._subject.preset().model)[0], CountTrained)

    def save(self) -> str:
        """Save the model and load it in this process: it must generate the texts of the trained one."""
        assert self._model is not None
        before = generate(self._model)
        self._model.save_pretrained(self._folder)
        after = generate(load(self._folder))
        assert after == before, f"The loaded model generates {after}, and the model that was saved {before}; they must be equal."
        size = sum(file.stat().st_size for file in self._folder.iterdir())
        return f"{size / 1e6:.2f} MB; loaded again, it generates the same texts"

    def generate_elsewhere(self) -> str:
        """Load the saved model in a fresh process and generate for two prompts there: the texts must be those of this process."""
        if any(plugin.package == "(this process)" for plugin in self._subject.plugins):
            return "registered in this process only: a fresh one cannot load it"
        assert_same_elsewhere(self._folder, generate(load(self._folder)))
        return f"loads it, and generates the same texts for {len(PROMPTS)} prompts of different lengths"

    def compare_stepper(self) -> str:
        """Compare the logits of the stepper with those of the plain call after each prompt and both together."""
        saved = load(self._folder)
        model, tokenizer = saved.model, saved.tokenizer
        factory = find_stepper(self._subject.preset().model)
        if factory is not None and self._subject.preset().parts == ():
            specs = factory.expect(model.config)
            if specs is not None:
                self._compare_tensors(specs, model)
        if not isinstance(model, SupportsStep):
            assert factory is None, (
                "There is a stepper factory, but the model has no method stepper (SupportsStep) to go with it."
            )
            return "has none: it generates through its plain call"
        stepper = model.stepper()
        for prompt in PROMPTS:
            ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(prompt)]])
            with torch.no_grad():
                expected = model(ids, model.initial_state(1))[0][:, -1]
            logits, _ = stepper.forward(ids.numpy(), stepper.initial_state(1))
            actual = torch.from_numpy(np.array(logits))
            assert_close(
                actual, expected, f"After {prompt!r} ({ids.shape[1]} tokens) the stepper gives other logits than the call."
            )
        return f"gives the logits of the plain call, within {TOLERANCE:g}" + (
            "" if factory else "; no factory, so it needs torch"
        )

    def _compare_tensors(self, specs: object, model: object) -> None:
        """Check that the factory expects the tensors that the model saves."""
        if not isinstance(model, nn.Module):
            return  # sizes depend on the texts
        expected = {name: tuple(shape) for name, (_, shape) in dict(specs).items()}  # type: ignore[call-overload]
        saved = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        assert expected.keys() == saved.keys(), (
            f"The stepper factory expects the tensors {sorted(expected)}; the model has {sorted(saved)}."
        )
        for name, shape in expected.items():
            fits = len(shape) == len(saved[name]) and all(a in (None, b) for a, b in zip(shape, saved[name], strict=True))
            assert fits, f"The stepper factory expects {name} with the shape {shape}; the model has {saved[name]}."
