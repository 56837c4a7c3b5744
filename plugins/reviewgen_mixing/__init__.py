"""Context mixing: many contexts predict each symbol, and a mixer learns which of them to trust."""

from reviewgen_mixing.model import Mixing

__all__ = ["Mixing"]
