"""A model of llm that writes with a trained model of reviewgen.

The answer to a prompt is a text that begins with it. In a conversation, each prompt continues the
text so far. llm shows an exception as one line, so those of reviewgen, which are sentences, are
passed on.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import llm

from llm_reviewgen.options import GenerateKwargs, SourceOptions, to_keywords
from llm_reviewgen.sources import as_source

if TYPE_CHECKING:
    from llm.parts import Message

    from reviewgen import ReviewModel

__all__ = ["PREFIX", "ReviewgenModel"]

PREFIX = "reviewgen"


class ReviewgenModel(llm.Model):
    """A model of llm. Without a source of its own, the option ``source`` of each prompt says what
    to load.
    """

    can_stream = True

    def __init__(self, model_id: str, source: str | None = None) -> None:
        self.model_id = model_id
        self.source = source
        self.Options = GenerateKwargs if source else SourceOptions
        # by source and bits: `llm chat` loads once
        self._loaded: dict[tuple[str, int], ReviewModel] = {}

    def __str__(self) -> str:
        return f"reviewgen: {self.model_id}"

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[str]:
        """Yield the text, of which llm has shown nothing yet: the prompt, and what follows it.

        Raises:
            ModelError: The model cannot be loaded, or cannot write such a text.
        """
        from reviewgen.errors import ReviewgenError

        if prompt.system:
            raise llm.ModelError(
                f"{self.model_id} continues a text and has no system prompt: leave it out."
            )
        try:
            before, begin = split_conversation(prompt.messages)
            keywords = {"seed": secrets.randbits(32)} | to_keywords(prompt.options)
            model = self._load(prompt.options)
            details: dict[str, Any] = {
                "source": self.source or prompt.options.source,
                "seed": keywords["seed"],
            }
            yield from skip(len(before), write(model, before + begin, keywords, details))
        except ReviewgenError as error:
            raise llm.ModelError(str(error)) from None
        response.response_json = details

    def _load(self, options: Any) -> "ReviewModel":
        """Return the trained model, loaded when it is first used."""
        import reviewgen

        source = self.source or options.source
        bits = int(options.bits or 32)
        if source is None:
            raise llm.ModelError(
                f"Say which model to load, as in `llm -m {self.model_id} -o source ./my-model`: a"
                " folder, owner/name on the Hub, or a preset. `llm models -q reviewgen` lists"
                " those that need no source."
            )
        if (source, bits) not in self._loaded:
            self._loaded[source, bits] = reviewgen.load(as_source(source), weight_bits=bits)
        return self._loaded[source, bits]


def write(
    model: "ReviewModel", text: str, keywords: dict[str, Any], details: dict[str, Any]
) -> Iterator[str]:
    """Yield a text in pieces as it is written, the prompt first; in one piece where its whole must
    be known.

    Args:
        model: The trained model.
        text: The beginning.
        keywords: Those of ``ReviewModel.generate``.
        details: Receives what is logged beside the text.
    """
    if "must_include" not in keywords and "novelty" not in keywords:
        yield from model.stream(text, **keywords)
        return
    generation = next(model.generate_each(text, **keywords))
    details["finish_reason"] = generation.finish_reason
    if generation.novelty is not None and "novelty" in keywords:
        details["novelty"] = asdict(generation.novelty)
    yield generation.text


def split_conversation(messages: "Sequence[Message]") -> tuple[str, str]:
    """Return the text that earlier turns have written, and what the last prompt adds to it.

    An answer of this plugin repeats its prompt; that of another model is put after its prompt.
    """
    before = begin = ""
    for message in messages:
        said = "".join(getattr(part, "text", "") for part in message.parts)
        if message.role == "user":
            # the end of a line that was piped to llm
            begin += _space(before + begin, said.rstrip("\n")) + said.rstrip("\n")
        elif message.role == "assistant":
            before += said if said.startswith(begin) else begin + _space(begin, said) + said
            begin = ""
    return before, begin


def _space(left: str, right: str) -> str:
    """Return the space between two texts: none where one of them has it, or is empty."""
    return "" if not left or not right or left[-1].isspace() or right[0].isspace() else " "


def skip(characters: int, pieces: Iterator[str]) -> Iterator[str]:
    """Yield the pieces of a text without its first characters."""
    for piece in pieces:
        if rest := piece[characters:]:
            yield rest
        characters = max(0, characters - len(piece))
