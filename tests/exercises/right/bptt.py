import torch
from torch import nn


def clip(parameters, max_norm):
    grads = [each.grad for each in parameters if each.grad is not None]
    norm = torch.cat([grad.reshape(-1) for grad in grads]).norm()
    if norm > max_norm:
        for grad in grads:
            grad.mul_(max_norm / norm)
    return norm


def train(model, optimizer, ids, targets, bptt, max_norm):
    loss_of = nn.CrossEntropyLoss()
    state = model.initial_state(ids.shape[0])
    losses = []
    for x, y in zip(ids.split(bptt, dim=1), targets.split(bptt, dim=1), strict=True):
        optimizer.zero_grad(set_to_none=False)
        logits, after = model(x, state)
        loss = loss_of(logits.transpose(1, 2), y)
        loss.backward()
        with torch.no_grad():
            clip([*model.parameters()], max_norm)
        optimizer.step()
        state = after.detach().clone()
        losses += [loss.item()]
    return losses
