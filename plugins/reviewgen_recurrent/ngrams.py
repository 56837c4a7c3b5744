"""Vectors of n-grams: what a recurrent model may add to a token's embedding, so that it need not spell out what came just before.

Each of the last 2 to N tokens together have a vector of their own, found by a hash, beside the token's. A look-up costs next to
nothing, where a wider layer costs with the square of its width. It must not know any cell. Shapes: B batch, T time (tokens),
N longest n-gram, K buckets of each length, E embedding.

Sources: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information" (sums of hashed n-grams); Pagnoni et al. 2024,
"Byte Latent Transformer" (in front of a language model).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.dropout import draw_mask
from reviewgen_recurrent.hashing import bucket_of, mix

__all__ = ["NgramEmbedding"]


class NgramEmbedding(nn.Module):
    """One table for n-grams of every length: K rows for pairs, K for triples, and so on, zeros at first.

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
        return self.table(rows.flatten(0, 1), per_sample_weights=weights).unflatten(0, ids.shape)

    def _find_rows(self, ids: Int[Tensor, "T B"], past: Int[Tensor, "N1 B"]) -> Int[Tensor, "T B N1"]:
        buckets, seen = self.config.ngram_buckets, torch.cat([past, ids])  # (N-1+T, B)
        key, found = mix(0, ids), []
        for before in range(1, self.config.ngrams):
            start = len(past) - before
            key = mix(key, seen[start : start + len(ids)])
            found.append(bucket_of(key, buckets) + (before - 1) * buckets)
        return torch.stack(found, dim=-1)
