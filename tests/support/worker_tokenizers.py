"""Tokenizers that worker processes import by name."""

import os
import signal
import sys

import numpy as np

from tests.support.fakes import LetterTokenizer

__all__ = ["Deadly", "Plain"]


class Plain(LetterTokenizer):
    """Encodes a text quickly."""

    def encode(self, text: str) -> list[int]:
        return 2 + np.frombuffer(text.encode(), np.uint8) % len(self.characters)  # type: ignore[return-value]


class Deadly(Plain):
    """Kills the worker that it encodes in."""

    def encode(self, text: str) -> list[int]:
        if any("loky" in word for word in sys.orig_argv):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(text)
