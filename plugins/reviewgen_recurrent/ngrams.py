"""Vectors of n-grams: what a recurrent model may add to a token's embedding, so that it need not spell out what came just before.

Each of the last 2 to N tokens together have a vector of their own, found by a hash, beside the token's. A look-up costs next to
nothing, where a wider layer costs with the square of its width. It must not know any cell. Shapes: B batch, T time (tokens),
N longest n-gram, E embedding.

Sources: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information" (sums of hashed n-grams); Pagnoni et al. 2024,
"Byte Latent Transformer" (in front of a language model).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.dropout import draw_mask
from reviewgen_recurrent.kernels import bucket_of, mix

__all__ = ["NgramEmbedding"]

BAGS = {"cpu", "cuda"}  # where torch's embedding_bag has its gradient; on mps it came with torch 2.10


class NgramEmbedding(nn.Module):
    """One table for n-grams of every length: so many rows for pairs, as many for triples, and so on, zeros at first.

    A dropped n-gram is like one that was never met, whose vector is zero: the others are not scaled up.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.EmbeddingBag((config.ngrams - 1) * config.ngram_buckets, config.embedding_size, mode="sum")
        nn.init.zeros_(self.table.weight)

    def forward(self, ids: Int[Tensor, "T B"], past: Int[Tensor, "N1 B"]) -> Float[Tensor, "T B E"]:
        """Return the sum of the vectors of the n-grams that end at each token, with the dropout of n-grams.

        Args:
            ids: The tokens.
            past: The N-1 tokens before them.
        """
        rows = self._find_rows(ids, past)  # (T, B, N-1)
        weights = None
        if self.training and self.config.ngram_dropout > 0:
            dropped = draw_mask(rows.shape, self.config.ngram_dropout, rows.device)
            weights = dropped.logical_not().to(self.table.weight.dtype).flatten(0, 1)
        return self._sum(rows.flatten(0, 1), weights).unflatten(0, ids.shape)

    def _sum(self, rows: Int[Tensor, "N N1"], weights: Float[Tensor, "N N1"] | None) -> Float[Tensor, "N E"]:
        """Return the weighted sum of some rows of the table; torch's bags are faster, and not to be had on every device."""
        if rows.device.type in BAGS:
            return self.table(rows, per_sample_weights=weights)
        vectors = F.embedding(rows, self.table.weight)  # (N, N-1, E)
        return (vectors if weights is None else vectors * weights.unsqueeze(-1)).sum(dim=1)

    def _find_rows(self, ids: Int[Tensor, "T B"], past: Int[Tensor, "N1 B"]) -> Int[Tensor, "T B N1"]:
        buckets, seen = self.config.ngram_buckets, torch.cat([past, ids])  # (N-1+T, B)
        key, found = mix(0, ids), []
        for before in range(1, self.config.ngrams):
            start = len(past) - before
            key = mix(key, seen[start : start + len(ids)])
            found.append(bucket_of(key, buckets) + (before - 1) * buckets)
        return torch.stack(found, dim=-1)
