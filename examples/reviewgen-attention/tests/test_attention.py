"""Each law of the model contract; the model against torch's attention over a whole text with an
explicit mask.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from reviewgen_attention.config import AttentionConfig
from reviewgen_attention.model import Attention

from reviewgen.errors import ConfigError
from reviewgen.testing import MODEL_LAWS


def make(seed=0, **settings):
    """Return a model in evaluation mode; a small one keeps the tests fast. Its window is shorter
    than the texts.
    """
    torch.manual_seed(seed)
    return Attention(
        AttentionConfig(
            **{
                "vocab_size": 11,
                "hidden_size": 16,
                "layers": 2,
                "heads": 2,
                "window": 5,
                **settings,
            }
        )
    ).eval()


@pytest.mark.parametrize("law", MODEL_LAWS, ids=lambda law: law.__name__)
def test_law(law):
    law(make)


@pytest.mark.parametrize(
    "settings", [{"window": 1, "heads": 1, "layers": 1}, {"window": 40, "dropout": 0.5}], ids=str
)
def test_laws_of_other_settings(settings):
    for law in MODEL_LAWS:
        law(lambda: make(**settings))


def whole_text(model, ids):
    """Return logits (1, T, V) in double precision: absolute positions, rotations as complex
    numbers, a mask, no cache.
    """
    config = model.config
    time = ids.size(1)
    w = {name: tensor.double() for name, tensor in model.state_dict().items()}
    width = config.hidden_size // config.heads
    position = torch.arange(time, dtype=torch.float64)
    turns = torch.polar(
        torch.ones(()).double(),
        position[:, None] * 10_000 ** (-torch.arange(0, width, 2).double() / width),
    )
    mask = torch.tensor([[0 <= t - s <= config.window for s in range(time)] for t in range(time)])

    def norm(x, scales):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scales

    def rotate(x):  # (1, N, T, D); the halves of a head are real and imaginary parts
        turned = torch.complex(*x.chunk(2, -1)) * turns
        return torch.cat((turned.real, turned.imag), -1)

    x = w["embedding.weight"][ids]
    for n in range(config.layers):
        block = f"blocks.{n}."
        parts = (
            norm(x, w[block + "norms.0.weight"]) @ w[block + "queries_keys_values.weight"].T
        ).chunk(3, -1)
        q, k, v = (part.view(1, time, config.heads, width).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(rotate(q), rotate(k), v, attn_mask=mask)
        x = x + attended.transpose(1, 2).reshape(1, time, -1) @ w[block + "mix.weight"].T
        inner = (norm(x, w[block + "norms.1.weight"]) @ w[block + "expand.weight"].T).clamp(
            min=0
        ) ** 2
        x = x + inner @ w[block + "contract.weight"].T
    return norm(x, w["norm.weight"]) @ w["output.weight"].T + w["output.bias"]


@pytest.mark.parametrize(
    "sizes", [[60], [1] * 60, [3, 17, 2, 38]], ids=["whole", "one by one", "chunks"]
)
def test_logits_equal_those_of_attention_over_the_whole_text(sizes):
    model = make(seed=1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.2 * torch.randn_like(weights))
    ids = torch.randint(11, (1, 60))
    state = model.initial_state(1)
    pieces = []
    for piece in ids.split(sizes, dim=1):
        logits, state = model(piece, state)
        pieces.append(logits)
    torch.testing.assert_close(
        torch.cat(pieces, 1), whole_text(model, ids).float(), rtol=1e-4, atol=1e-4
    )


def test_a_text_of_2000_tokens_in_chunks_keeps_the_shape_of_the_state():
    model = make()
    ids = torch.randint(11, (2, 2000))
    state = model.initial_state(2)
    shapes = [part.shape for part in state]
    with torch.no_grad():
        for piece in ids.split(512, dim=1):
            logits, state = model(piece, state)
            assert [part.shape for part in state] == shapes
        # all that the last token's logits depend on
        recent = ids[:, -1 - model.config.layers * model.config.window :]
        expected, _ = model(recent, model.initial_state(2))
    torch.testing.assert_close(logits[:, -1], expected[:, -1], rtol=1e-4, atol=1e-4)


def test_rows_with_texts_of_unequal_length_can_be_stacked():
    model = make()
    texts = torch.randint(11, (1, 2)), torch.randint(11, (1, 9))
    with torch.no_grad():
        states = [model(text, model.initial_state(1))[1] for text in texts]
        stacked = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
        following = torch.randint(11, (2, 4))
        together, _ = model(following, stacked)
        for row, state in enumerate(states):
            alone, _ = model(following[row : row + 1], state)
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_two_carried_chunks_in_bf16_reach_every_parameter():
    model = copy.deepcopy(make()).train()
    state = model.initial_state(2)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            logits, state = model(torch.randint(11, (2, 8)), tuple(part.detach() for part in state))
            logits.float().logsumexp(-1).sum().backward()
    assert [part.dtype for part in state] == [torch.float32, torch.int64]
    assert all(
        weights.grad is not None and weights.grad.isfinite().all() for weights in model.parameters()
    )


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match="multiple of 6"):
        AttentionConfig(vocab_size=11, hidden_size=16, heads=3)
