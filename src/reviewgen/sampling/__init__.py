"""The sampling room: prompts, the decoding loop, the search. How one token is drawn stands in ``reviewgen.compiled.draw``.

prompt    what a model reads, and what it has to spell again
row       one text in the making
drawing   from the settings of a call to those of a draw
write     many texts, batch by batch; texts that must include some words
decode    from prompts to texts, token by token or, where a stepper can, in its own loop
ends      where a text ends
beams     the most probable texts instead of drawn ones
hooks     transformers' logits processors, stopping criteria and streamers
states    the states of several rows, taken apart and put together
plain     a stepper for any model, through its plain call
threads   how many threads one token deserves

``plain`` and ``threads`` need torch, and are imported where they are needed; ``hooks`` imports it once it has something to call.
"""

from reviewgen.sampling.decode import decode
from reviewgen.sampling.drawing import make_drawing
from reviewgen.sampling.hooks import Hooks, make_hooks
from reviewgen.sampling.prompt import Pieces, check_prompts, check_seed
from reviewgen.sampling.row import Row, start_rows, text_so_far
from reviewgen.sampling.write import Writer

__all__ = [
    "Hooks",
    "Pieces",
    "Row",
    "Writer",
    "check_prompts",
    "check_seed",
    "decode",
    "make_drawing",
    "make_hooks",
    "start_rows",
    "text_so_far",
]
