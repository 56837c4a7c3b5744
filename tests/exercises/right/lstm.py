import torch
from torch import nn


class Lstm(nn.Module):
    """The state is one tensor (B, 2, H), and the gates are (B, 4, H)."""

    def __init__(self, vocab_size, embedding_size, hidden_size):
        super().__init__()
        self.size = hidden_size
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.input = nn.Linear(embedding_size, 4 * hidden_size)
        self.recurrent = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, vocab_size)

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 2, self.size)

    def forward(self, ids, state):
        logits = []
        for t in range(ids.shape[1]):
            h, c = state.unbind(1)
            gates = self.input(self.embedding(ids[:, t])) + self.recurrent(h)
            gates = gates.view(len(ids), 4, self.size)
            opened = gates[:, [0, 1, 3]].sigmoid()
            c = opened[:, 1] * c + opened[:, 0] * gates[:, 2].tanh()
            state = torch.stack((opened[:, 2] * c.tanh(), c), dim=1)
            logits.append(self.output(state[:, 0]))
        return torch.stack(logits, dim=1), state
