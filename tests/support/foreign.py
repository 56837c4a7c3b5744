"""A model of transformers, generated from by transformers, with the logits of a ``TableModel``: what the names come from."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from tests.support.fakes import LETTERS

__all__ = ["TableConfig", "TableForCausalLM", "foreign", "foreign_texts"]


class TableConfig(PretrainedConfig):
    """The settings that ``generate`` of transformers asks for."""

    model_type = "table"

    def __init__(self, vocab_size: int = LETTERS.vocab_size, **others: Any) -> None:
        super().__init__(**({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "use_cache": False} | others))
        self.vocab_size, self.hidden_size, self.num_hidden_layers, self.num_attention_heads = vocab_size, 1, 1, 1


class TableForCausalLM(PreTrainedModel, GenerationMixin):
    """Scores the next token by a table of logits, or by any function of ids (B, T) that returns logits (B, T, V)."""

    config_class = TableConfig

    def __init__(self, config: TableConfig, scores: Callable[[Tensor], Tensor]) -> None:
        super().__init__(config)
        self.anchor, self.scores = torch.nn.Parameter(torch.zeros(1)), scores

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.scores(input_ids).float())

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}


def foreign(logits: Tensor | Callable[[Tensor], Tensor], tokenizer: Any = LETTERS) -> TableForCausalLM:
    """Return the model of a table (V, V), in which bos cannot be written, as here."""
    if isinstance(logits, Tensor):
        masked = logits.clone()
        masked[:, tokenizer.bos_id] = -torch.inf
        return TableForCausalLM(TableConfig(tokenizer.vocab_size), lambda ids: masked[ids])
    return TableForCausalLM(TableConfig(tokenizer.vocab_size), logits)


def foreign_texts(model: TableForCausalLM, ids: Sequence[int], tokenizer: Any = LETTERS, **settings: Any) -> list[str]:
    """Return what transformers writes after bos and ids."""
    read = torch.tensor([[tokenizer.bos_id, *ids]])
    written = model.generate(read, attention_mask=torch.ones_like(read), **settings)
    return [tokenizer.decode([token for token in row if token > 1]) for row in written.tolist()]
