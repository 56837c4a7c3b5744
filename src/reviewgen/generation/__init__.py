"""Generation: from the keywords of ``generate`` to the sampled tokens, and what is returned of them.

    request        the arguments of one call, checked
    prompts        which ids of a prompt the model is fed, and which end of its text is sampled again
    generator      texts of one model: many, one as a stream, or texts that must include some words
    decode         the decoding loop: token by token, or in blocks where the stepper has a loop of its own
    beams          beam search
    hooks          logits processors, stopping criteria and streamers, as transformers calls them
    processors     logits processors by name
    rows           the rows of a batch and their states
    stopping       where a text ends
    sentences      where its sentences end
    speller        the words that texts are made of
    outputs        the returned texts
    next_tokens    the most probable next tokens, their entropy, and the counts behind them
    walk           a text that a user extends and undoes step by step
    model_stepper  a Stepper for any model, through its call; imports torch, so it is imported where it is needed

How one token is sampled from logits stands in ``reviewgen.compiled.sampling``. Knows neither bundle nor evaluation: what scores
a text is handed in.
"""

import lazy_loader

from reviewgen.generation.decode import make_sampling_params
from reviewgen.generation.generator import Generator
from reviewgen.generation.next_tokens import Alternative, Context, NextTokens, Support
from reviewgen.generation.outputs import GeneratedText, Generation
from reviewgen.generation.prompts import Pieces
from reviewgen.generation.request import GenerateOptions, Request, make_request
from reviewgen.generation.rows import select_rows
from reviewgen.generation.speller import Speller
from reviewgen.generation.walk import Walk

TYPE_CHECKING = False  # as in ``reviewgen``
if TYPE_CHECKING:
    from reviewgen.generation.model_stepper import DeviceStepper, ModelStepper, make_stepper

__all__ = [
    "Alternative",
    "Context",
    "DeviceStepper",
    "GenerateOptions",
    "GeneratedText",
    "Generation",
    "Generator",
    "ModelStepper",
    "NextTokens",
    "Pieces",
    "Request",
    "Speller",
    "Support",
    "Walk",
    "make_request",
    "make_sampling_params",
    "make_stepper",
    "select_rows",
]

__getattr__, __dir__, _ = lazy_loader.attach(
    __name__, submod_attrs={"model_stepper": ["DeviceStepper", "ModelStepper", "make_stepper"]}
)
