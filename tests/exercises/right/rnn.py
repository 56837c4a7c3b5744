import torch
from torch import nn


class Rnn(nn.Module):
    """Written with matrices, time first; the state is a tuple."""

    def __init__(self, vocab_size, embedding_size, hidden_size):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.input = nn.Linear(embedding_size, hidden_size)
        self.recurrent = nn.Linear(hidden_size, hidden_size, bias=False)
        self.output = nn.Linear(hidden_size, vocab_size)

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, self.recurrent.in_features),)

    def forward(self, ids, state):
        (h,) = state
        weight = torch.cat((self.input.weight, self.recurrent.weight), dim=1)  # (H, E + H)
        logits = []
        for x in self.embedding(ids).transpose(0, 1):
            h = (torch.cat((x, h), dim=1) @ weight.T + self.input.bias).tanh()
            logits.append(self.output(h))
        return torch.stack(logits).transpose(0, 1), (h,)
