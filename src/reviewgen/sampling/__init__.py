"""The sampling room: prompts, logits to the next token, the decoding loop."""

from reviewgen.sampling.decode import Row, decode, start_rows, text_so_far
from reviewgen.sampling.draw import distribution, draw
from reviewgen.sampling.prompt import Pieces
from reviewgen.sampling.threads import using_threads

__all__ = ["Pieces", "Row", "decode", "distribution", "draw", "start_rows", "text_so_far", "using_threads"]
