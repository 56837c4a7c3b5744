import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Keeps the embeddings of all tokens, and computes one head after the other."""

    def __init__(self, vocab_size, embedding_size, heads):
        super().__init__()
        self.size = embedding_size // heads
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.query = nn.Linear(embedding_size, embedding_size, bias=False)
        self.key = nn.Linear(embedding_size, embedding_size, bias=False)
        self.value = nn.Linear(embedding_size, embedding_size, bias=False)
        self.output = nn.Linear(embedding_size, vocab_size)

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 0, self.embedding.embedding_dim)

    def forward(self, ids, state):
        x = self.embedding(ids)
        everything = torch.cat((state, x), dim=1)
        position = torch.arange(everything.shape[1])
        mask = position <= position[state.shape[1] :, None]  # (T, S + T)
        heads = zip(
            self.query(x).split(self.size, -1),
            self.key(everything).split(self.size, -1),
            self.value(everything).split(self.size, -1),
            strict=True,
        )
        read = [F.scaled_dot_product_attention(q, k, v, attn_mask=mask) for q, k, v in heads]
        return self.output(torch.cat(read, dim=-1)), everything
