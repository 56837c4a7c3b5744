"""Embeddings of hashed n-grams, which a recurrent model may add to those of tokens, so that the state need not hold the last few.

The last 2, 3, ... N tokens each have an embedding, found by a hash, that is added to the last token's. A look-up costs almost
nothing, whereas a wider layer costs with the square of its width. Must not know any cell. Shapes: B batch, T time (tokens), N
longest n-gram, E embedding.

Sources: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information" (sums of hashed n-grams); Pagnoni et al. 2024,
"Byte Latent Transformer" (in front of a language model).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from reviewgen_recurrent.config import RecurrentConfig
from reviewgen_recurrent.dropout import make_mask
from reviewgen_recurrent.kernels import bucket_of, extend_key

BAG_DEVICES = {"cpu", "cuda"}  # where torch's embedding_bag has a gradient; on mps it has had one since torch 2.10


class NgramEmbedding(nn.Module):
    """One table for n-grams of every length: ``ngram_buckets`` rows for pairs, as many for triples, and so on, initially zero.

    A dropped n-gram equals one that never occurred, whose embedding is zero, so the others are not scaled up.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        zeros = torch.zeros((config.ngrams - 1) * config.ngram_buckets, config.embedding_size)
        self.table = nn.EmbeddingBag.from_pretrained(zeros, freeze=False, mode="sum", sparse=True)

    def forward(self, ids: Int[Tensor, "T B"], past: Int[Tensor, "N1 B"]) -> Float[Tensor, "T B E"]:
        """Return the sum of the embeddings of the n-grams that end at each token, with n-gram dropout.

        Args:
            ids: The tokens.
            past: The N-1 tokens before them.
        """
        rows = self._hash_ngrams(ids, past)  # (T, B, N-1)
        weights = None
        if self.training and self.config.ngram_dropout > 0:
            dropped = make_mask(rows.shape, self.config.ngram_dropout, rows.device)
            weights = dropped.logical_not().to(self.table.weight.dtype).flatten(0, 1)
        return self._sum(rows.flatten(0, 1), weights).unflatten(0, ids.shape)

    def _sum(self, rows: Int[Tensor, "N N1"], weights: Float[Tensor, "N N1"] | None) -> Float[Tensor, "N E"]:
        """Return weighted sums of rows of the table; torch's embedding_bag is faster, and not available on every device."""
        if rows.device.type in BAG_DEVICES and not torch.compiler.is_exporting():  # a bag becomes a slow loop in ONNX
            return self.table(rows, per_sample_weights=weights)
        vectors = F.embedding(rows, self.table.weight)  # (N, N-1, E); its gradient is dense
        return (vectors if weights is None else vectors * weights.unsqueeze(-1)).sum(dim=1)

    def _hash_ngrams(self, ids: Int[Tensor, "T B"], past: Int[Tensor, "N1 B"]) -> Int[Tensor, "T B N1"]:
        """Return the row in the table of each n-gram, by length, that ends at each token."""
        buckets, seen = self.config.ngram_buckets, torch.cat([past, ids])  # (N-1+T, B)
        key, rows = extend_key(0, ids), []
        for before in range(1, self.config.ngrams):
            start = len(past) - before
            key = extend_key(key, seen[start : start + len(ids)])
            rows.append(bucket_of(key, buckets) + (before - 1) * buckets)
        return torch.stack(rows, dim=-1)
