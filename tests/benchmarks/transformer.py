"""The transformer beside the library transformers and beside lstm.

    python -m tests.benchmarks transformer decode                tokens a second of one stream
    python -m tests.benchmarks transformer table CORPUS MINUTES [PRESETS]   as for mixing
    python -m tests.benchmarks transformer curve FILE.svg MINUTES           0.5 to 30 MB

PINNED
"""

import time

import torch
from reviewgen_transformer.config import TransformerConfig
from reviewgen_transformer.network import Transformer, mistral_name
from transformers import MistralConfig, MistralForCausalLM

import reviewgen
from tests.benchmarks.decoding import writer
from tests.benchmarks.mixing import QUIET, film_bits, film_sizes, pieces, save_curve, split

TOKENS = 200
ROUNDS = 3
MEGABYTES = (0.5, 2, 8, 30)
SIZES = (
    {"vocab_size": 70, "hidden_size": 128, "layers": 4, "heads": 2},
    {"vocab_size": 8000, "hidden_size": 128, "layers": 4, "heads": 2},
    {"vocab_size": 8000, "hidden_size": 256, "layers": 6, "heads": 4},
)


def main(what="decode", *arguments):
    """Print tokens a second or the rows of a table, or draw the curve."""
    {"decode": decode, "table": table, "curve": curve}[what](*arguments)


def decode():
    """Print how many tokens a second both sample with the same weights."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for size in SIZES:
        decode_size(TransformerConfig(**size))


def decode_size(config):
    """Print how many tokens a second both sample with one config."""
    ours = Transformer(config).eval()
    theirs = their_model(ours)
    print(
        f"tokens a second, one stream, {config.hidden_size} units, {config.layers} layers,"
        f" {config.vocab_size:,} tokens"
    )
    for name, write in (
        ("transformers", lambda steps: their_text(theirs, steps)),
        ("stepper, 32 bits", writer(ours.stepper(32), config.vocab_size, 1)),
        ("stepper, 8 bits", writer(ours.stepper(8), config.vocab_size, 1)),
    ):
        write(TOKENS)  # compiles
        seconds = []
        for _ in range(ROUNDS):
            start = time.process_time()
            write(TOKENS)
            seconds.append(time.process_time() - start)
        print(f"{name:18} {TOKENS / min(seconds):8,.0f}", flush=True)


def their_model(ours):
    """Return the model of the library transformers that has the weights of ours."""
    config = ours.config
    theirs = MistralForCausalLM(
        MistralConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.inner_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            sliding_window=config.window,
            rms_norm_eps=config.rms_norm_eps,
            tie_word_embeddings=True,
        )
    ).eval()
    tensors = {mistral_name(name): tensor for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(tensors, strict=False)
    theirs.tie_weights()
    return theirs


def their_text(model, steps):
    """Sample tokens with the library's generate."""
    ids = torch.zeros(1, 1, dtype=torch.long)
    options = {"do_sample": True, "temperature": 0.8, "top_k": 0, "pad_token_id": 0}
    with torch.no_grad():
        model.generate(ids, min_new_tokens=steps, max_new_tokens=steps, **options)


def table(corpus="shakespeare", minutes="10", *presets):
    """Print nats per character of the held-out texts for each preset, after equal time."""
    train, held_out, options = split(corpus)
    for preset in presets or ("lstm-char", "transformer-char"):
        start = time.monotonic()
        model = reviewgen.train(
            preset, pieces(train), budget=f"{minutes}m", training=QUIET, **options
        )
        seconds = time.monotonic() - start
        nats = model.evaluate(held_out, **options).nats_per_character
        print(f"{corpus} {preset:18} {nats:.4f} nats after {seconds:.0f} s", flush=True)


def curve(file, minutes="4"):
    """Draw the bits per character of film reviews by the size of the training text, after equal
    time.
    """
    points = {"lstm-char": [], "transformer-char": []}
    for size, train, held_out in film_sizes(MEGABYTES):
        for preset, found in points.items():
            found.append((size, film_bits(preset, train, held_out, budget=f"{minutes}m")[0]))
    save_curve(file, points)
