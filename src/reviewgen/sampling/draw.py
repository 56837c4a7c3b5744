"""From logits to the next token: temperature, top-k, top-p, min-p, then one draw by inverse CDF.

The filters mean what they mean in transformers and act in its order. Knows neither a model nor a tokenizer.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reviewgen.config import GenerationConfig

__all__ = ["distribution", "draw"]


def distribution(logits: Float[Tensor, "B V"], config: GenerationConfig) -> Float[Tensor, "B V"]:
    """Return the distribution to draw from, float64, rows summing to one.

    top-k keeps the k most probable tokens (Fan et al. 2018); top-p the smallest set of probability p or more (Holtzman et al.
    2020); min-p those at least min_p times as probable as the most probable one (Nguyen et al. 2024). The most probable
    token always stays.
    """
    scores = logits.double()
    scores = (scores - scores.amax(-1, keepdim=True)) / config.temperature
    if 0 < config.top_k < scores.shape[-1]:
        kth = scores.topk(config.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    probabilities = scores.softmax(-1)
    if config.top_p < 1:
        probabilities = _top_p(probabilities, config.top_p)
    if config.min_p > 0:
        floor = config.min_p * probabilities.amax(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < floor, 0)
    return probabilities / probabilities.sum(-1, keepdim=True)


def draw(probabilities: Float[Tensor, "B V"], uniform: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Return the token of each row at which the cumulative distribution passes the uniform number in [0, 1)."""
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:].contiguous()
    token = torch.searchsorted(cumulative, uniform.unsqueeze(1) * total, right=True)
    last = torch.searchsorted(cumulative, total)  # the last token of positive probability, should rounding pass it
    return torch.minimum(token, last).squeeze(1)


def _top_p(probabilities: Float[Tensor, "B V"], top_p: float) -> Float[Tensor, "B V"]:
    ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # probability of the more probable tokens
    dropped = torch.zeros_like(probabilities, dtype=torch.bool).scatter(-1, places, before >= top_p)
    return probabilities.masked_fill(dropped, 0)
