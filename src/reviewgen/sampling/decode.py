"""The decoding loop: prompts in, texts out, token by token, many rows at once.

Every row draws from a random stream of its own, made from the seed and the row's number, so a text does not depend on which
others are written beside it. Global random state is never touched. Works with any LanguageModel through its plain call.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from reviewgen.config import GenerationConfig
from reviewgen.protocols import LanguageModel, State, Tokenizer
from reviewgen.sampling.draw import distribution, draw
from reviewgen.sampling.prompt import Pieces

__all__ = ["Row", "decode", "select_rows", "start_rows", "text_so_far"]

_READ_TOKENS = 512  # of a prompt, at a time


@dataclass
class Row:
    """One text in the making."""

    prompt: str
    ids: list[int]
    rest: str  # the end of the prompt that is still to be spelled
    prompt_length: int  # of the decoded prompt; another than len(prompt) where the tokenizer loses characters
    random: np.random.Generator
    forced: list[int] = field(default_factory=list)  # tokens to come whatever is drawn
    new_tokens: int = 0
    finish_reason: str | None = None  # "end" (of the review), "length" or "stop"
    text: str = ""  # complete once finish_reason is set


def start_rows(prompts: Sequence[str], pieces: Pieces, seed: int) -> list[Row]:
    """Return a row for each prompt; row i draws from the random stream of (seed, i)."""
    rows = []
    for number, prompt in enumerate(prompts):
        split = pieces.split(prompt)
        rows.append(Row(prompt, list(split.ids), split.rest, split.length, np.random.default_rng((seed, number))))
    return rows


@torch.inference_mode()
def decode(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pieces: Pieces,
    rows: list[Row],
    config: GenerationConfig,
    stop_strings: Sequence[str] = (),
    device: str = "cpu",
) -> Iterator[list[Row]]:
    """Extend the rows until each is finished; yield those that got a token, after every step."""
    if config.max_new_tokens == 0:
        for row in rows:
            row.text, row.finish_reason = row.prompt, "length"
        return
    logits, state = _read_prompts(model, tokenizer.bos_id, rows, device)
    live = list(rows)
    while live:
        tokens = _next_tokens(logits, live, tokenizer, pieces, config)
        for row, token in zip(live, tokens, strict=True):
            _extend(row, token, tokenizer, pieces, config, stop_strings)
        yield live
        going = [number for number, row in enumerate(live) if row.finish_reason is None]
        if len(going) < len(live):
            live, state = (
                [live[number] for number in going],
                select_rows(state, torch.tensor(going, dtype=torch.long, device=device)),
            )
        if live:
            last = torch.tensor([[row.ids[-1]] for row in live], device=device)
            all_logits, state = model(last, state)
            logits = all_logits[:, -1]


def select_rows(state: State, rows: Tensor) -> State:
    """Return the state of some of the rows."""
    if isinstance(state, tuple):
        return tuple(select_rows(part, rows) for part in state)
    return state.index_select(0, rows)


def _read_prompts(model: LanguageModel, bos_id: int, rows: list[Row], device: str) -> tuple[Tensor, State]:
    """Read each distinct prompt once and return the logits (B, V) after it, and the state."""
    read: dict[tuple[int, ...], tuple[Tensor, State]] = {}
    for row in rows:
        key = (bos_id, *row.ids)
        if key not in read:
            read[key] = _read(model, torch.tensor([key], device=device))
    results = [read[bos_id, *row.ids] for row in rows]
    return torch.cat([logits for logits, _ in results]), _stack([state for _, state in results])


def _read(model: LanguageModel, ids: Tensor) -> tuple[Tensor, State]:
    state = model.initial_state(1)
    for piece in torch.split(ids, _READ_TOKENS, dim=1):
        logits, state = model(piece, state)
    return logits[:, -1], state


def _stack(states: list[State]) -> State:
    if isinstance(states[0], tuple):
        return tuple(_stack(list(parts)) for parts in zip(*states, strict=True))
    return torch.cat(states)


def _next_tokens(logits: Tensor, rows: list[Row], tokenizer: Tokenizer, pieces: Pieces, config: GenerationConfig) -> list[int]:
    """Draw one token a row: never bos, and one that spells the prompt where its end is still to be spelled."""
    logits = logits.to("cpu", copy=True)
    logits[:, tokenizer.bos_id] = -torch.inf
    for number, row in enumerate(rows):
        if row.rest:
            allowed = pieces.spelling(row.rest) & (logits[number] > -torch.inf)
            if allowed.any():
                logits[number].masked_fill_(~allowed, -torch.inf)
            else:  # no likely way to spell it, so as the tokenizer does
                row.forced, row.rest = tokenizer.encode(row.rest), ""
    uniform = torch.tensor([row.random.random() for row in rows], dtype=torch.float64)
    tokens: list[int] = draw(distribution(logits, config), uniform).tolist()
    return tokens


def _extend(
    row: Row, token: int, tokenizer: Tokenizer, pieces: Pieces, config: GenerationConfig, stop_strings: Sequence[str]
) -> None:
    """Add a token to a row and finish the row where it ends."""
    if row.forced:
        row.ids.append(row.forced.pop(0))
    elif token == tokenizer.eos_id:
        row.finish_reason = "end"
    else:
        row.ids.append(token)
        row.new_tokens += len(pieces.texts[token]) > len(row.rest) or not row.rest
        row.rest = row.rest[len(pieces.texts[token]) :]
        if stop_strings and not row.rest and _stops(row, tokenizer, stop_strings):
            return
        if row.new_tokens == config.max_new_tokens:
            row.finish_reason = "length"
    if row.finish_reason is not None:
        row.text = _text(row, tokenizer)


def _stops(row: Row, tokenizer: Tokenizer, stop_strings: Sequence[str]) -> bool:
    """Finish a row at the end of the first stop string in what was generated."""
    window = 8 * max(map(len, stop_strings)) + 8  # tokens; a character takes eight at most
    tail = tokenizer.decode(row.ids[-window:])
    if not any(stop in tail for stop in stop_strings):
        return False
    text = _text(row, tokenizer)
    ends = [place + len(stop) for stop in stop_strings if (place := text.find(stop, len(row.prompt))) >= 0]
    if not ends:
        return False
    row.text, row.finish_reason = text[: min(ends)], "stop"
    return True


def text_so_far(row: Row, tokenizer: Tokenizer) -> str:
    """Return a row's text without a last character that is still incomplete, which may be spelled by several U+FFFD."""
    return row.text if row.finish_reason is not None else row.prompt + _continuation(row, tokenizer).rstrip("\ufffd")


def _text(row: Row, tokenizer: Tokenizer) -> str:
    """Return the prompt as it was given, also where the tokenizer cannot spell all of it, and what follows it."""
    return row.prompt + _continuation(row, tokenizer)


def _continuation(row: Row, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(row.ids)[row.prompt_length :]
