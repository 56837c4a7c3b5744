"""The sampling room: prompts, the decoding loop. How one token is drawn stands in ``reviewgen.compiled.draw``.

prompt    what a model reads, and what it has to spell again
decode    from prompts to texts, token by token or, where a model can, in its own loop
threads   how many threads one token deserves
"""

from reviewgen.sampling.decode import Guard, decode
from reviewgen.sampling.prompt import Pieces, check_prompts, check_seed, check_stops
from reviewgen.sampling.row import Row, start_rows, text_so_far
from reviewgen.sampling.threads import using_threads

__all__ = [
    "Guard",
    "Pieces",
    "Row",
    "check_prompts",
    "check_seed",
    "check_stops",
    "decode",
    "start_rows",
    "text_so_far",
    "using_threads",
]
