import torch
from torch import nn


class NeuralNgram(nn.Module):
    """Keeps n - 1 tokens, one more than needed, token by token; returns log probabilities."""

    def __init__(self, vocab_size, order, embedding_size, hidden_size):
        super().__init__()
        self.size = order - 1
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.hidden = nn.Linear(self.size * embedding_size, hidden_size)
        self.output = nn.Linear(hidden_size, vocab_size)

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, self.size, dtype=torch.int64)

    def forward(self, ids, state):
        steps = []
        for token in ids.T:
            state = torch.hstack((state[:, 1:], token[:, None]))
            x = torch.cat([self.embedding(state[:, k]) for k in range(self.size)], dim=-1)
            steps.append(self.output(self.hidden(x).tanh()))
        return torch.stack(steps, dim=1).log_softmax(-1), state
