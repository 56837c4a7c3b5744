"""Embeddings of hashed n-grams, for networks that add them to those of tokens. Needs torch.

Shapes: B batch, T time (tokens), R tokens of a batch (T times B), E embedding, N longest n-gram,
N1 = N - 1.

Sources: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information" (sums of hashed
n-grams); Pagnoni et al. 2024, "Byte Latent Transformer" (hashed n-grams in front of a language
model).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen.compiled.dropout import make_mask
from reviewgen.compiled.ngrams import bucket_of, extend_key

BAG_DEVICES = {"cpu", "cuda"}
"""The devices on which torch's embedding_bag has a gradient. (On mps only since torch 2.10.)"""


class NgramEmbedding(nn.Module):
    """Embeddings of hashed n-grams. They are added to the embeddings of tokens, so that the state
    need not store the last few tokens.

    The last 2, 3, ... N tokens each have an embedding, which is found by a hash. A look-up costs
    almost nothing, whereas the cost of a wider layer grows with the square of its width. One table
    has ``buckets`` rows for pairs, as many for triples, and so on. It is initially zero.

    A dropped n-gram gets the embedding of an n-gram that never occurred, which is zero. So the
    others are not scaled up.

    Args:
        config: The model's config: ``ngrams`` is the longest n-gram, N, ``ngram_buckets`` the
            number of embeddings for the n-grams of each length, and ``ngram_dropout`` the share of
            the n-gram embeddings that is left out in training.
        width: Width of an embedding, E.
    """

    def __init__(self, config: Any, width: int) -> None:
        super().__init__()
        self.ngrams = config.ngrams
        self.buckets = config.ngram_buckets
        self.dropout = config.ngram_dropout
        zeros = torch.zeros((self.ngrams - 1) * self.buckets, width)
        self.table = nn.EmbeddingBag.from_pretrained(zeros, freeze=False, mode="sum", sparse=True)

    def forward(self, ids: Int[Tensor, "T B"], past: Int[Tensor, "N1 B"]) -> Float[Tensor, "T B E"]:
        """Return, for each token, the sum of the embeddings of the n-grams that end there, after
        n-gram dropout.

        Args:
            ids: The tokens.
            past: The N-1 tokens before them.
        """
        rows = self._hash_ngrams(ids, past)  # (T, B, N-1)
        weights = None
        if self.training and self.dropout > 0:
            dropped = make_mask(rows.shape, self.dropout, rows.device)
            weights = dropped.logical_not().to(self.table.weight.dtype).flatten(0, 1)
        return self._sum(rows.flatten(0, 1), weights).view(*ids.shape, -1)

    def _sum(
        self, rows: Int[Tensor, "R N1"], weights: Float[Tensor, "R N1"] | None
    ) -> Float[Tensor, "R E"]:
        """Return, for each token, the weighted sum of some rows of the table. torch's embedding_bag
        is faster, but not available on every device.
        """
        # in ONNX, embedding_bag would become a slow loop
        if rows.device.type in BAG_DEVICES and not torch.compiler.is_exporting():
            bags: Tensor = self.table(rows, per_sample_weights=weights)
            return bags
        vectors = F.embedding(rows, self.table.weight)  # (R, N-1, E); its gradient is dense
        if weights is not None:
            vectors = vectors * weights.unsqueeze(-1)
        return vectors.sum(dim=1)

    def _hash_ngrams(
        self, ids: Int[Tensor, "T B"], past: Int[Tensor, "N1 B"]
    ) -> Int[Tensor, "T B N1"]:
        """Return the table's row of each n-gram. The last axis of the result is the n-grams that
        end at a token, from the shortest to the longest.
        """
        seen = torch.cat([past, ids])  # (N-1+T, B)
        key = extend_key(0, ids)
        rows = []
        for before in range(1, self.ngrams):
            start = len(past) - before
            key = extend_key(key, seen[start : start + len(ids)])
            # the table has ``buckets`` rows for pairs, then those for triples, and so on
            rows.append(bucket_of(key, self.buckets) + (before - 1) * self.buckets)
        return torch.stack(rows, dim=-1)
