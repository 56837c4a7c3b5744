"""The text of the token ids in a graph, which only a tokenizer knows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from reviewgen.protocols.graph import ModelGraph

_SHOWN = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def with_texts(graph: ModelGraph, tokenizer: Any) -> ModelGraph:
    """Return a graph with the text of its tokens in front of the labels; without a tokenizer, with their ids."""
    nodes, edges = (
        tuple(_with_text(each, tokenizer) for each in graph.nodes),
        tuple(_with_text(each, tokenizer) for each in graph.edges),
    )
    nodes = tuple(node if node.inside is None else replace(node, inside=with_texts(node.inside, tokenizer)) for node in nodes)
    return replace(graph, nodes=nodes, edges=edges)


def _with_text(part: Any, tokenizer: Any) -> Any:
    if not part.tokens:
        return part
    text = _text(part.tokens, tokenizer)
    return replace(part, label=f"{text} {part.label}".rstrip(), tokens=())


def _text(ids: Sequence[int], tokenizer: Any) -> str:
    """Return tokens as readable text in quotation marks: a space is ␣, and special ids have their names."""
    if tokenizer is None:
        return " ".join(map(str, ids))
    special = {tokenizer.bos_id: "⟨start⟩", tokenizer.eos_id: "⟨end⟩"}
    text = "".join(
        special.get(each) or (tokenizer.decode([each]) if each < tokenizer.vocab_size else f"⟨{each}⟩") for each in ids
    )
    return "“" + "".join(_SHOWN.get(letter, letter) for letter in text) + "”"
