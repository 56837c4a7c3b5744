"""The loss of a batch with its numbers: logits, log-softmax, negative log likelihood, mean, nats, bits per character.

N predicted tokens, V vocabulary; B batch, T time.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reviewgen.errors import GenerationError
from reviewgen.explanation.batch import IGNORED, Batch, Labels
from reviewgen.explanation.results import Loss, TokenLoss


def places(batch: Batch) -> list[tuple[int, int]]:
    """Return row and position of each prediction, text by text."""
    rows, times = torch.nonzero(batch.targets != IGNORED, as_tuple=True)
    return list(zip(rows.tolist(), times.tolist(), strict=True))


@torch.no_grad()
def explain_loss(
    logits: Float[Tensor, "B T V"], batch: Batch, labels: Labels, windows: dict[tuple[int, int], tuple[str, ...]]
) -> Loss:
    """Return the loss, token by token and by torch's losses.

    Args:
        logits: The model's.
        batch: What it has read, and the targets.
        labels: For display.
        windows: The tokens that the prediction at a row and position is made from.

    Raises:
        GenerationError: A logit is NaN or positive infinity.
    """
    if bool((logits.isnan() | logits.isposinf()).any()):
        raise GenerationError.of_damaged_logits()
    scores, targets = logits.double().flatten(0, 1), batch.targets.flatten()  # (B·T, V), (B·T,)
    log_sums = scores.logsumexp(-1).view(batch.ids.shape)
    tokens = []
    for row, time in places(batch):
        target, log_sum = int(batch.targets[row, time]), float(log_sums[row, time])
        logit = float(logits[row, time, target])
        log_probability = logit - log_sum
        tokens.append(
            TokenLoss(
                text=row,
                before=batch.tokens[row][time],
                token=labels.label(target),
                logit=logit,
                log_sum_exp=log_sum,
                log_probability=log_probability,
                bits=abs(log_probability) / math.log(2),  # abs, for there is a minus zero
                probability=math.exp(log_probability),
                window=windows.get((row, time), ()),
            )
        )
    nats = math.fsum(-token.log_probability for token in tokens)
    return Loss(
        tokens=tuple(tokens),
        nats=nats,
        mean=nats / len(tokens),
        mean_of_nll_loss=float(nn.NLLLoss(ignore_index=IGNORED)(nn.LogSoftmax(dim=-1)(scores), targets)),
        mean_of_cross_entropy=float(nn.CrossEntropyLoss(ignore_index=IGNORED)(scores, targets)),
        characters=batch.characters,
        bits_per_character=nats / math.log(2) / batch.characters,
    )
