import numpy as np
import torch


def bits_per_character(logits, targets, texts):
    """Row by row, in numpy."""
    total = 0.0
    for scores, row in zip(logits.double().numpy(), targets.numpy(), strict=True):
        for z, target in zip(scores, row, strict=True):
            if target >= 0:
                top = z.max()
                total += (top + np.log(np.exp(z - top).sum()) - z[target]) / np.log(2)
    return torch.tensor(total / len("".join(texts)))
