"""The settings of the transformer and its presets. Training and inference share them, so this file
must not import torch.

Shapes: V vocabulary, H hidden, L layers, N heads, G key/value heads, D dimensions of a head, F
feed-forward, W window.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from reviewgen.config import (
    CHAR_GENERATION,
    WORD_GENERATION,
    Bound,
    ConditionedConfig,
    PositiveInt,
    Preset,
    Probability,
    Technique,
    check,
)
from reviewgen.errors import ConfigError, quoted

FEED_FORWARD_MULTIPLE = 32  # a default feed-forward width is a multiple of this
# the accepted values of "architectures" in a config of the library transformers
CLASSES = ["MistralForCausalLM"], ["LlamaForCausalLM"]
# max number of weights, and max number of cached values, of a model of the library transformers
MAX_SIZE = 100_000_000
# settings of the library transformers that change what a model computes; for each, the only value
# with which a model can be read
FORM: dict[str, Any] = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "rope_scaling": None,
    "rope_type": "default",
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "auto_map": None,
}
TECHNIQUES = (
    Technique(
        "n-gram vectors",
        "vectors of the last 2 to n tokens are added to the embedding (Bojanowski et al. 2017)",
        {"ngrams": 1},
    ),
    Technique(
        "dropout",
        "some outputs are zeroed in training, more of them with more epochs (Srivastava et al."
        " 2014)",
        dict.fromkeys(("dropout", "embedding_dropout", "ngram_dropout"), 0.0),
    ),
)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(ConditionedConfig):
    """The settings of ``transformer``.

    Attributes:
        hidden_size: Width of the embeddings and of each layer, H.
        layers: Number of layers, L.
        heads: Number of attention heads, N; each has H / N dimensions, D, an even number.
        key_value_heads: Number of heads of the keys and values, G, each of which N / G heads read
            (Ainslie et al. 2023); None for as many as heads.
        feed_forward_size: Width of the feed-forward layers, F; None for about 8/3 H, which gives
            them as many weights as two matrices of 4 H.
        window: Number of tokens that a layer attends to, the current one included, W. Over all
            layers, a model sees up to L (W - 1) tokens back.
        rope_theta: The base of the rotary frequencies.
        rms_norm_eps: Added to the mean square that a normalisation divides by.
        dropout: Dropout on what each layer adds to its input: the share that is zeroed in training.
        embedding_dropout: Dropout on the embeddings.
        ngrams: Longest n-gram of the last tokens that has an embedding, added to the token's; 1
            turns n-grams off.
        ngram_buckets: Number of embeddings for n-grams of each length; n-grams share them by a
            hash.
        ngram_dropout: Share of the n-gram embeddings that is left out in training, each position
            independently.
    """

    hidden_size: PositiveInt = 128
    layers: Annotated[int, Bound(at_least=1, at_most=64)] = 4
    heads: PositiveInt = 4
    key_value_heads: Annotated[int | None, Bound(at_least=1)] = None
    feed_forward_size: Annotated[int | None, Bound(at_least=1)] = None
    window: Annotated[int, Bound(at_least=1, at_most=1 << 16)] = 128
    rope_theta: Annotated[float, Bound(at_least=1)] = 10_000.0
    rms_norm_eps: Annotated[float, Bound(above=0, at_most=0.1)] = 1e-5
    dropout: Probability = 0.0
    embedding_dropout: Probability = 0.0
    ngrams: Annotated[int, Bound(at_least=1, at_most=16)] = 1
    ngram_buckets: Annotated[int, Bound(at_least=1, at_most=1 << 24)] = 1 << 14
    ngram_dropout: Probability = 0.0

    techniques: ClassVar[tuple[Technique, ...]] = TECHNIQUES

    @property
    def head_size(self) -> int:
        """The number of dimensions of a head, D."""
        return self.hidden_size // self.heads

    @property
    def key_size(self) -> int:
        """The width of the keys of a token, and of its values: G D."""
        return (self.key_value_heads or self.heads) * self.head_size

    @property
    def inner_size(self) -> int:
        """The width of the feed-forward layers, F."""
        # 8/3 H, in multiples, rounded up (a division of the negative number rounds up)
        multiples = -(-8 * self.hidden_size // (3 * FEED_FORWARD_MULTIPLE))
        return self.feed_forward_size or multiples * FEED_FORWARD_MULTIPLE

    def __post_init__(self) -> None:
        check(self)
        if self.hidden_size % (2 * self.heads):
            raise ConfigError(
                f"hidden_size={self.hidden_size} cannot be divided among heads={self.heads}: each"
                " head needs an even number of dimensions. Set hidden_size to a multiple of"
                f" {2 * self.heads}."
            )
        if self.heads % (self.key_value_heads or 1):
            raise ConfigError(
                f"heads={self.heads} cannot be divided among"
                f" key_value_heads={self.key_value_heads}: set key_value_heads to a divisor of"
                f" {self.heads}, or leave it out."
            )

    def to_transformers(self) -> dict[str, Any]:
        """Return the config of ``MistralForCausalLM``; see
        ``reviewgen.protocols.SupportsTransformers``.

        Raises:
            ConfigError: The model has n-gram vectors, or conditions at every step.
        """
        if self.ngrams > 1 or self.holds:
            extra = "conditions at every step" if self.holds else "n-gram vectors"
            advice = "" if self.holds else "train with --set model.ngrams=1, or "
            raise ConfigError(
                f"MistralForCausalLM has no {extra}, which this model has: {advice}export it with"
                " --onnx FOLDER or --out PAGE.html."
            )
        return {
            "architectures": CLASSES[0],
            "model_type": "mistral",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.inner_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads or self.heads,
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "sliding_window": self.window,
            "max_position_embeddings": 1 << 15,
            "tie_word_embeddings": True,
            "dtype": "float32",
        }

    @classmethod
    def from_transformers(cls, values: Mapping[str, Any]) -> "TransformerConfig":
        """Return the config of a model of ``MistralForCausalLM`` or ``LlamaForCausalLM``; see
        ``reviewgen.protocols.SupportsTransformers``.

        Raises:
            ConfigError: The class is another one, a setting changes what the model computes, or the
                model is too large.
        """
        if values["architectures"] not in CLASSES:
            raise ConfigError(
                f"the class {quoted(values['architectures'])} is not read, only"
                " MistralForCausalLM and LlamaForCausalLM: use the library transformers."
            )
        values = {**values, **(values.get("rope_parameters") or {})}
        for name, accepted in FORM.items():
            if values.get(name, accepted) != accepted:
                raise ConfigError(
                    f"{name} is {quoted(values[name])}, and only {accepted} is read: use the"
                    " library transformers."
                )
        is_mistral = values["architectures"] == CLASSES[0]
        window = values.get("sliding_window", 4096) if is_mistral else None
        config = cls(
            vocab_size=values["vocab_size"],
            bos_id=values.get("bos_token_id"),
            hidden_size=values["hidden_size"],
            layers=values["num_hidden_layers"],
            heads=values["num_attention_heads"],
            key_value_heads=values.get("num_key_value_heads"),
            feed_forward_size=values["intermediate_size"],
            window=values["max_position_embeddings"] if window is None else window,
            rope_theta=values.get("rope_theta", 10_000.0),
            rms_norm_eps=values["rms_norm_eps"],
        )
        weights_per_layer = 2 * (config.hidden_size + config.key_size) + 3 * config.inner_size
        weights = config.hidden_size * (config.vocab_size + config.layers * weights_per_layer)
        cached = 2 * config.layers * config.window * config.key_size
        if max(weights, cached) > MAX_SIZE:
            raise ConfigError(
                f"the model has {weights:,} weights and {cached:,} cached values, and at most"
                f" {MAX_SIZE:,} of each are read: use the library transformers."
            )
        head_size = values.get("head_dim")
        if head_size not in (None, config.head_size):
            raise ConfigError(
                f"head_dim is {quoted(head_size)}, and only hidden_size / num_attention_heads,"
                f" {config.head_size}, is read: use the library transformers."
            )
        return config

    @staticmethod
    def transformers_name(name: str) -> str:
        """Return the name that a tensor has in ``MistralForCausalLM``.

        >>> TransformerConfig.transformers_name("embedding.weight")
        'model.embed_tokens.weight'
        """
        return "model." + re.sub(r"^embedding\b", "embed_tokens", name)


# heads have 64 dimensions: on a CPU, a training step with 32 took a quarter more time
SIZES = tuple(
    {"hidden_size": size, "layers": layers, "heads": size // 64}
    for size, layers in ((64, 2), (128, 3), (128, 4), (192, 4), (256, 6), (384, 6))
)
# each pair: a number of epochs, and the model settings for runs of at least that many
BY_EPOCHS: tuple[tuple[float, dict[str, Any]], ...] = (
    (1.0, {}),
    (2.0, {"dropout": 0.1}),
    (5.0, {"dropout": 0.2, "embedding_dropout": 0.1}),
    (24.0, {"dropout": 0.3, "embedding_dropout": 0.2}),
)
# From 2 epochs on, n-grams are shorter and have a dropout, too. With n-grams of 5 tokens and half
# of the dropout, a run of 6 epochs (10 minutes) on tiny Shakespeare overfitted: its loss was 1.540
# nats, and 1.483 with these settings.
CHAR_BY_EPOCHS = (
    BY_EPOCHS[0],
    *(
        (epochs, {**dropouts, "ngrams": 4, "ngram_dropout": dropouts["dropout"]})
        for epochs, dropouts in BY_EPOCHS[1:]
    ),
)

TRANSFORMER_CHAR = Preset(
    model="transformer",
    tokenizer="char",
    model_settings={"hidden_size": 128, "layers": 4, "heads": 2, "window": 128, "ngrams": 5},
    training_settings={
        "batch_size": 8,
        "bptt": 256,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
    },
    generation_settings=CHAR_GENERATION,
    sizes=SIZES,
    by_epochs=CHAR_BY_EPOCHS,
    training_by_epochs=((1.0, {}), (5.0, {"learning_rate": 0.005})),
)
TRANSFORMER_WORD = Preset(
    model="transformer",
    tokenizer="word",
    model_settings={"hidden_size": 128, "layers": 4, "heads": 2, "window": 128},
    tokenizer_settings={"vocab_size": 8000, "min_frequency": 20},
    training_settings={
        "batch_size": 8,
        "bptt": 64,
        "learning_rate": 0.008,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
        "sampled_softmax": 500,
    },
    generation_settings=WORD_GENERATION,
    sizes=SIZES,
    by_epochs=BY_EPOCHS,
)
