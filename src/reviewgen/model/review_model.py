"""ReviewModel: a trained model and its tokenizer in one object. It is a facade: it calls the other
packages and adds no logic of its own.

Methods that evaluate, save or publish import the modules that they need when they are called. So a
model that only generates does not import torch if its plugin has a stepper that works without
torch.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

from reviewgen.conditions import Conditions
from reviewgen.config.descriptions import describes_options
from reviewgen.config.generation import GenerationConfig, GenerationSettings
from reviewgen.config.options import (
    CallOptions,
    EvaluateKwargs,
    EvaluationOptions,
    refuse_unknown_options,
)
from reviewgen.config.settings import check_flags, check_text
from reviewgen.errors import BundleError, ConfigError, GenerationError, quoted
from reviewgen.generation.generator import Generation, Generator, choose_batch_size, require_index
from reviewgen.generation.hooks import as_processors, make_hooks
from reviewgen.generation.next_tokens import NextTokens, Walk
from reviewgen.generation.pieces import TokenTexts
from reviewgen.generation.request import GenerateKwargs, Judge, Request, make_request
from reviewgen.hub.download import locate, parse_repository
from reviewgen.hub.keywords import HubKwargs, PushOptions
from reviewgen.novelty import Novelty
from reviewgen.protocols.tokenizer import Tokenizer
from reviewgen.saving.layout import Bundle
from reviewgen.saving.read import read_bundle
from reviewgen.storage import temporary_folder, to_path

if TYPE_CHECKING:
    from huggingface_hub import ModelCard
    from jaxtyping import Float32
    from numpy import ndarray

    from reviewgen.evaluation.evaluate import Evaluation
    from reviewgen.protocols.model import LanguageModel
    from reviewgen.words import Accuracy, Neighbour, PreferredWord, WordMap


class LoadKwargs(HubKwargs, total=False):
    """The keyword arguments of ``reviewgen.load``, which documents them."""

    weight_bits: int
    revision: str | None
    accept_changes: bool


class ReviewModel:
    """A trained model and its tokenizer.

    >>> model = reviewgen.load("lstm-word")                                     # doctest: +SKIP
    >>> model.generate("the ", num_return_sequences=3, seed=1)                  # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, **options: Unpack[LoadKwargs]
    ) -> "ReviewModel":
        """Load a trained model. This is ``reviewgen.load``, which describes the arguments, under
        the name that huggingface_hub uses.
        """
        refuse_unknown_options(options, LoadKwargs, "load")
        hub_options: dict[str, Any] = {**options}
        weight_bits = hub_options.pop("weight_bits", 32)
        accept_changes = hub_options.pop("accept_changes", False)
        check_flags(accept_changes=accept_changes)
        if not isinstance(weight_bits, int) or weight_bits not in (32, 16, 8):
            raise ConfigError(f"weight_bits must be 32, 16 or 8; got {quoted(weight_bits)}.")
        location = locate(pretrained_model_name_or_path, **hub_options)
        bundle = read_bundle(
            location.folder,
            weight_bits,
            strict=not location.is_downloaded,
            accept_changes=accept_changes,
        )
        bundle.origin = location.name
        return cls(bundle)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the model as the files of its saved folder. Unpickling checks these files as
        strictly as loading a saved folder does.
        """
        from reviewgen.saving.write import write_bundle

        with temporary_folder() as folder:
            write_bundle(self.bundle, folder / "model")
            files = {file.name: file.read_bytes() for file in (folder / "model").iterdir()}
        return _unpickle, (files, self.weight_bits, self.bundle.origin)

    @property
    def model(self) -> "LanguageModel":
        """The language model. The caller may change its weights, so after the first access
        ``digest`` is None.
        """
        return self.bundle.weights.expose()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self.bundle.tokenizer

    @property
    def preset(self) -> str:
        """The name of the preset that the model was trained with."""
        return self.bundle.preset

    @property
    def tokenizer_name(self) -> str:
        """The name of the tokenizer plugin, as in "word"."""
        return self.bundle.tokenizer_plugin.name

    @property
    def conditions(self) -> Conditions:
        """The conditions that the model was trained with, and their token ids. Empty for a model
        without conditions.
        """
        return self.bundle.conditions

    @property
    def generation_config(self) -> GenerationConfig:
        """The default generation settings that were saved with the model."""
        return self.bundle.generation

    @property
    def digest(self) -> str | None:
        """SHA-256 over the saved files that affect generated texts. None if the model is not saved,
        or after ``model`` was accessed.
        """
        return None if self.bundle.weights.is_exposed else self.bundle.digest()

    @property
    def weight_bits(self) -> int:
        """The number of bits per weight during generation; see ``reviewgen.load``."""
        return self.bundle.weights.weight_bits

    @property
    def device(self) -> str:
        """The device that generates and scores, by PyTorch's name; see ``to``."""
        return self.bundle.weights.device

    def to(self, device: Any) -> "ReviewModel":
        """Move generation and scoring to a device and return the model, like torch's ``Module.to``.

        An accelerator generates 512 texts in a batch. It rounds differently from the CPU, so the
        same seed gives other texts there. The saved weights do not change. A model that was trained
        by counting runs on the CPU only.

        >>> model = reviewgen.load("lstm-word").to("cuda")  # doctest: +SKIP

        Args:
            device: A ``torch.device``, or its name: "cpu", "cuda", "cuda:1", "mps".

        Raises:
            ConfigError: The device is not available, or the model cannot be moved to it.
        """
        name = str(device)
        self.bundle.weights.to("cpu" if re.fullmatch(r"cpu(:\d+)?", name) else name)
        return self

    @property
    def training(self) -> dict[str, Any]:
        """The record of the training, as JSON values: data, split, steps, hardware, seconds,
        metrics.
        """
        return self.bundle.training

    def __repr__(self) -> str:
        return f"ReviewModel({self.preset!r}, vocab_size={self.tokenizer.vocab_size})"

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: the preset, facts of the training and the learning curve."""
        from reviewgen.model.summary import summarize  # imports Jinja2

        return summarize(self.bundle)

    @overload
    def generate(
        self, prompt: str | Sequence[str] = "", **options: Unpack[GenerateKwargs]
    ) -> list[str]: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        return_dict_in_generate: Literal[True],
        **options: Unpack[GenerateKwargs],
    ) -> list[Generation]: ...

    @describes_options(CallOptions)
    def generate(
        self,
        prompt: str | Sequence[str] = "",
        *,
        return_dict_in_generate: bool = False,
        **options: Unpack[GenerateKwargs],
    ) -> list[str] | list[Generation]:
        """Generate reviews.

        Args:
            prompt: The text that each generated text starts with, or a list of such texts. Any
                string works, including the empty one.
            return_dict_in_generate: Return a ``Generation`` for each text instead of a string.
            generation_config: A GenerationConfig, or a mapping with some of its settings. It
                replaces the model's defaults. For this call, each setting can also be passed as a
                keyword: max_new_tokens, min_new_tokens, num_return_sequences, do_sample, num_beams,
                length_penalty, temperature, top_k, top_p, min_p, repetition_penalty,
                no_repeat_ngram_size, stop_strings, max_time, words, finish, logits_processors,
                conditions, regex, choices, json_schema, grammar, sentences, include, exclude,
                exact; ``GenerationConfig`` documents them.
            logits_processor: The name of an installed logits processor; a function, such as an
                object of transformers; or a list of these. A function is called with the token ids
                so far, (1, T), which start with bos, and the scores, (1, V). The processors that
                were saved with the model are then not used.
            stopping_criteria, streamer: transformers' objects, or functions with their signatures.
            best_of: Sample this many texts for each prompt, and return the best
                ``num_return_sequences`` of them, the best first.
            judge: How to rate the texts: another model, by its bits per character; the name of an
                installed metric that declares whether lower is better; or a function that takes a
                text without its prompt, and the prompt, and returns a number, where higher is
                better. By default, the model's own bits per character.
            See ``CallOptions``.

        Returns:
            ``num_return_sequences`` texts for each prompt, in the order of the prompts. Each text
            starts with its prompt. With ``novelty``, each is a ``GeneratedText``: a string with the
            attributes ``novelty`` and ``exceeds_max_copy``. With ``return_dict_in_generate``, each
            is a ``Generation``.

        Raises:
            ConfigError: A setting is unknown, out of range, or incompatible with another.
            DataError: ``novelty`` is given, and the model has no index of its training text.
            GenerationError: No token can be sampled, or a text does not fit its formats. With
                ``return_dict_in_generate``, such a text is returned with its ``problem``.
            PluginError: A logits processor is not installed, or does not work.
        """
        check_flags(return_dict_in_generate=return_dict_in_generate)
        request = self._request(prompt, options)
        generator = self.generator
        texts = list(generator.generate(request))
        if return_dict_in_generate:
            return [generator.output(text, request, number) for number, text in enumerate(texts)]
        for text in texts:
            if text.problem:
                raise GenerationError(text.problem)
        if request.novelty is not None:
            return list[str](map(generator.with_novelty, texts))
        return [text.text for text in texts]

    def generate_one(self, prompt: str = "", **options: Unpack[GenerateKwargs]) -> str:
        """Generate one review. The arguments are those of ``generate``."""
        if not isinstance(prompt, str):
            raise ConfigError(
                f"generate_one takes one prompt, a string; got {type(prompt).__name__}. generate"
                " takes a list."
            )
        number = options.get("num_return_sequences")
        if number not in (None, 1):
            raise ConfigError(
                f"generate_one returns one text; num_return_sequences={number} asks for more."
            )
        return self.generate(prompt, **options)[0]

    def generate_each(
        self, prompt: str | Sequence[str] = "", *, first: int = 0, **options: Unpack[GenerateKwargs]
    ) -> Iterator[Generation]:
        """Yield each text of ``generate`` as soon as it is generated, starting with text number
        ``first``. Raises the same errors as ``generate``.

        No text is started after ``max_time``, so there may be fewer texts.
        """
        request = self._request(prompt, options)
        generator = self.generator
        if not isinstance(first, int) or isinstance(first, bool) or not 0 <= first <= sys.maxsize:
            raise ConfigError(f"first must be a whole number of at least 0; got {quoted(first)}.")
        texts = generator.generate(request, first, start_late=False)
        return (generator.output(text, request, number) for number, text in enumerate(texts, first))

    def stream(self, prompt: str = "", **options: Unpack[GenerateKwargs]) -> Iterator[str]:
        """Yield one review in pieces while it is generated. The first piece is the prompt. The
        joined pieces are the text that ``generate_one`` returns.

        A piece never splits a character. It is one character if the tokenizer's tokens are
        characters. With ``finish="sentence"`` it consists of whole sentences. The arguments are
        those of ``generate`` except num_beams and novelty="filter", which need the whole text.
        """
        request = self._request(prompt, options)
        texts = len(request.prompts)
        if texts != 1:
            raise ConfigError(f"stream returns one text; this call asks for {texts}.")
        if request.config.num_beams > 1 or request.novelty == "filter":
            raise ConfigError(
                "num_beams and novelty='filter' need the whole text and cannot be combined with"
                " stream."
            )
        return self.generator.stream(request)

    def next_tokens(
        self,
        text: str = "",
        *,
        k: int = 10,
        temperature: float = 1.0,
        conditions: Mapping[str, Any] | None = None,
    ) -> NextTokens:
        """Return the k most probable next tokens and the entropy of the distribution. For a model
        that was trained by counting, also return the counts behind the probabilities.

        Filters such as top_k are not applied. The empty text stands for the start of a review. The
        text is tokenized without changes. With a word tokenizer, leave out a space at the end of
        the text, since the space belongs to the next token.

        Args:
            text: The text before the next token.
            k: The number of tokens.
            temperature: 1 gives the model's own probabilities.
            conditions: Values of the conditions that the model was trained with; others are
                unspecified.

        Raises:
            ConfigError: The text is not a string, k is not at least 1, the temperature is not above
                0, or a condition is unknown.
            GenerationError: The logits are NaN or infinite, or no token may follow the text.
        """
        return self.walk(text, temperature=temperature, conditions=conditions).next_tokens(k)

    def walk(
        self,
        text: str = "",
        *,
        temperature: float = 1.0,
        conditions: Mapping[str, Any] | None = None,
        logits_processor: Any = None,
        seed: int | None = None,
    ) -> Walk:
        """Return a ``Walk``: a text that the caller can extend token by token, and whose last steps
        can be undone.

        ``logits_processor`` is as in ``generate``, but if it is not given, the processors that were
        saved with the model are not used. Raises the errors of ``next_tokens``, and PluginError if
        a logits processor is not installed or cannot be created.
        """
        stepper = self.bundle.weights.stepper()
        prefix = self.conditions.encode({} if conditions is None else conditions)
        hooks = make_hooks(as_processors(logits_processor), self.tokenizer)
        return Walk(
            stepper,
            self.tokenizer,
            self._pieces,
            text,
            prefix,
            temperature=temperature,
            hooks=hooks,
            seed=seed,
        )

    @describes_options(EvaluationOptions)
    def evaluate(self, source: Any, **options: Unpack[EvaluateKwargs]) -> "Evaluation":
        """Measure the model on a source of texts, in bits per character.

        Conditions of a text are read from the columns of the source that have the conditions'
        names. A missing value counts as unspecified.

        Args:
            source: See ``reviewgen.data.open.open_source``.
            See ``EvaluationOptions``.

        Raises:
            DataError: The source cannot be read, or contains nothing to evaluate.
            ConfigError: An argument is unknown, or the split is unknown or differs from the split
                of the training.
        """
        from reviewgen.data.texts import read_documents
        from reviewgen.evaluation.evaluate import evaluate_documents

        refuse_unknown_options(options, EvaluateKwargs, "evaluate")
        weights = self.bundle.weights
        return evaluate_documents(
            weights.model_on_device,
            read_documents(source, self.bundle, **options),
            self.tokenizer.vocab_size,
            weights.device,
            self.conditions,
        )

    def novelty(self, text: str) -> Novelty:
        """Compare a text with the training text. The result has the copied spans, and the share of
        the windows of 8, 12 and 20 tokens that occur in the training text.

        Raises:
            ConfigError: The text is not a string.
            DataError: The model has no index of its training text.
        """
        if not isinstance(text, str):
            raise ConfigError(f"The text must be a string; got {type(text).__name__}.")
        return require_index(self.bundle.index).examine(
            self.tokenizer.encode(text), self.tokenizer.decode
        )

    def score(
        self,
        text: str | list[str],
        prompt: str = "",
        *,
        conditions: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the negative log2 probability of a text, in bits: the total, per character and per
        token.

        Args:
            text: The text, or a list of texts. The end token of a text is scored, too.
            prompt: The context before the text. The prompt is not scored. The prompt and the text
                are tokenized separately. With a word tokenizer, a space between the two belongs to
                the text.
            conditions: Values of the conditions that the model was trained with; others are
                unspecified.

        Returns:
            A ``Score``; for a list of texts, a list of scores.

        Raises:
            DataError: The text is empty.
            ConfigError: A condition or its value is unknown.
        """
        from reviewgen.evaluation.evaluate import score_text

        if isinstance(text, list | tuple):
            return [self.score(each, prompt, conditions=conditions) for each in text]
        prefix = self.conditions.encode({} if conditions is None else conditions)
        weights = self.bundle.weights
        return score_text(
            weights.model_on_device, self.tokenizer, text, prefix, prompt, weights.device
        )

    def neighbours(self, word: str, *, k: int = 10) -> "list[Neighbour]":
        """Return the k words whose embeddings are nearest to the embedding of a word, nearest
        first.

        If the word consists of several tokens, its embedding is the mean of their embeddings. The
        returned words consist of one token each. With a character tokenizer, the word and its
        neighbours are characters. A blend uses the embeddings of its first component that has
        embeddings.

        Raises:
            ConfigError: The word is empty, k is not at least 1, or the model has no token
                embeddings. N-grams have none.
        """
        from reviewgen.words import find_neighbours

        return find_neighbours(self.bundle, self._pieces, word, k)

    def word_map(self, *, words: int = 300) -> "WordMap":
        """Return a two-dimensional map of the most frequent words. The coordinates of a word are
        the first two principal components of its embedding.

        The map has the first words of the vocabulary. A subword tokenizer sorts its vocabulary only
        roughly by frequency.

        >>> reviewgen.load("lstm-word").word_map().save("words.svg")  # doctest: +SKIP

        Raises:
            ConfigError: words is not at least 1, or the model has no token embeddings.
        """
        from reviewgen.words import map_words

        return map_words(self.bundle, self._pieces, words)

    def embed(self, texts: str | Sequence[str]) -> 'Float32[ndarray, "*N H"]':
        """Return a vector for each text, (N, H): the mean of the network's hidden states after the
        tokens of the text.

        For a single string, return its vector, (H,).

        Conditions are unspecified. Texts are processed in batches of 32, at about the cost of
        generating them. A blend uses the hidden states of its first component that has a hidden
        state.

        Raises:
            ConfigError: The model has no hidden state. N-grams and neural n-grams have none.
            DataError: A text is empty or not a string.
        """
        from reviewgen.words import embed_texts

        vectors = embed_texts(self.bundle, texts)
        return vectors[0] if isinstance(texts, str) else vectors

    def contrast(
        self, condition: str, *, k: int = 10, seed: int = 0
    ) -> "dict[str, list[PreferredWord]]":
        """Return, for each value of a condition, the k words whose probability the value raises
        most, in descending order.

        The model generates 60 texts of 40 tokens without any condition, and then computes the
        probabilities of the next word at each position of these texts, once with each value. The
        probability of a word with a value is the mean over all positions. The log ratio of the word
        compares this probability with the mean for the other values. A word is left out if it is
        expected less than once in 5,000 tokens, if its log ratio is below 0.05, or if the 95 %
        interval of the log ratio over the texts (a jackknife) includes values of zero or less. So a
        value without an effect has no words.

        Args:
            condition: A condition of categories or numbers.
            k: The number of words for each value.
            seed: The seed of the generated texts.

        Raises:
            ConfigError: The model has no such condition, it is free text, or the tokens are
                characters.
        """
        from reviewgen.words import contrast_words

        def write(settings: GenerationConfig) -> list[str]:
            """Generate texts without any condition."""
            return self.generate(
                generation_config=settings, conditions=self.conditions.unspecified, seed=seed
            )

        return contrast_words(self.bundle, self._pieces, condition, k, write)

    def classify(self, texts: str | Sequence[str], condition: str) -> Any:
        """Predict a condition from texts: return, for each text, the most probable value of the
        condition, and the probabilities of all values.

        Returns a list of ``Classification`` for a list of texts, and one ``Classification`` for a
        single string.

        By Bayes' rule, P(value | text) is proportional to P(value) P(text | value). P(value) is the
        share of the training texts that have the value. Other conditions are unspecified.

        Raises:
            ConfigError: The model has no such condition, or it is free text.
            DataError: A text is empty or not a string.
        """
        from reviewgen.words import classify_texts

        results = classify_texts(self.bundle, texts, condition)
        return results[0] if isinstance(texts, str) else results

    def accuracy(
        self, source: Any, condition: str, **options: Unpack[EvaluateKwargs]
    ) -> "Accuracy":
        """Return the share of texts for which ``classify`` finds the actual value, on at most 1,000
        texts.

        These texts are drawn at random from all texts with a known value. Every call draws the same
        texts.

        Args:
            source: Texts with a column of the condition's name; see ``evaluate``.
            condition: The condition.
            options: How the texts are read; see ``evaluate``.

        Raises:
            ConfigError: The model has no such condition, it is free text, or an option is unknown.
            DataError: The source cannot be read, or no text has a known value.
        """
        from reviewgen.words import measure_accuracy

        refuse_unknown_options(options, EvaluateKwargs, "accuracy")
        return measure_accuracy(self.bundle, source, condition, **options)

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        overwrite: bool = False,
        dtype: Literal["float32", "float16", "int8"] = "float32",
        repo_id: str | None = None,
        push_to_hub: bool = False,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Save the model and everything that belongs to it in one folder. ``reviewgen.load`` loads
        it.

        Args:
            save_directory: The folder.
            overwrite: Whether to replace a saved model that exists in this folder.
            dtype: The dtype of a network's saved weights. "float16" halves the size of the file and
                rounds the weights to 11 bits. "int8" quarters the size and rounds each row of a
                matrix to 255 steps.
            repo_id: The repository on the Hub to publish to.
            push_to_hub: Whether to publish the model as well, and return the URL of the commit.
                ``push_to_hub_kwargs`` are then the arguments of ``push_to_hub``.

        Raises:
            OutputExists: The folder exists and ``overwrite`` is false, or the folder is not a saved
                model.
            StorageError: The disk is full, or the folder cannot be written.
            ConfigError: The dtype is unknown, the model is not a network, or an argument is
                unknown.
            NotPublished, HubError, SourceError: See ``push_to_hub``. Only SourceError is raised
                before the model is saved.
        """
        from reviewgen.saving.write import write_bundle

        check_flags(overwrite=overwrite, push_to_hub=push_to_hub)
        given = list(push_to_hub_kwargs) if repo_id is None else ["repo_id", *push_to_hub_kwargs]
        if push_to_hub:
            parse_repository(str(repo_id), push_to_hub_kwargs.get("revision"))
        elif given:
            raise ConfigError(f"{', '.join(given)} needs push_to_hub=True.")
        write_bundle(
            self.bundle, to_path("save_directory", save_directory), overwrite=overwrite, dtype=dtype
        )
        if not push_to_hub:
            return None
        return self.push_to_hub(str(repo_id), dtype=dtype, **push_to_hub_kwargs)

    def save_generation_config(
        self, save_directory: str | Path, **settings: Unpack[GenerationSettings]
    ) -> None:
        """Save generation settings as the model's defaults, in the model's own folder or in a copy
        of it.

        >>> model = reviewgen.load("./my-model")  # doctest: +SKIP
        >>> model.save_generation_config("./my-model", top_p=0.95)  # doctest: +SKIP

        Args:
            save_directory: The folder that the model was loaded from, or a new folder. In the
                model's own folder, ``generation_config.json`` is replaced. A new folder becomes a
                copy of the model with these settings.
            settings: The settings to change; see ``GenerationConfig``.

        Raises:
            ConfigError: A setting is unknown or out of range, or the model was not loaded from a
                folder.
            OutputExists: ``save_directory`` exists, and the model was not loaded from it.
            StorageError: The disk is full, or the folder cannot be written.
        """
        from reviewgen.saving.write import save_defaults

        # generate() has no argument likeness: the setting exists only as a saved default
        likeness: Any = settings.pop("likeness", None)
        config = self._request("", cast(GenerateKwargs, settings)).config
        if likeness is not None:
            config = replace(config, likeness=likeness)
        save_defaults(self.bundle, to_path("save_directory", save_directory), config)

    def is_saved_in(self, folder: str | Path) -> bool:
        """Return whether this is the folder that the model was loaded from."""
        return self.bundle.is_saved_in(to_path("folder", folder))

    def generate_model_card(
        self,
        *,
        source: str | None = None,
        license: str | None = None,
        language: str | Sequence[str] | None = None,
        datasets: str | Sequence[str] | None = None,
        tags: Sequence[str] = (),
    ) -> "ModelCard":
        """Return a new model card, the same as ``push_to_hub`` writes for a model without a card.
        ``str(card)`` is the card's Markdown.

        Args:
            source: The argument of ``reviewgen.load`` in the card's code snippet.
            license, language, datasets, tags: Metadata for the Hub.

        Raises:
            ConfigError: A value of the metadata is not text.
            BundleError: The record of the training is damaged.
        """
        from huggingface_hub import ModelCard

        from reviewgen.hub.publish import make_card

        check_text("source", source, optional=True)
        metadata = {"license": license, "language": language, "datasets": datasets, "tags": tags}
        return ModelCard(make_card(self.bundle, type(self), source=source, **metadata))

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> str:
        """Publish the model on the Hugging Face Hub, and return the URL of the commit.

        Before uploading, 200 generated texts and the vocabulary are scanned for e-mail addresses,
        telephone numbers, URLs and handles, and the texts are also scanned for copied text. This is
        a check, not a guarantee. A new card is written, unless a user has edited the card in the
        model's folder or in the repository: an edited card is kept. Publishing an unchanged model
        again makes no commit.

        >>> model.push_to_hub("ana/music-reviews", license="apache-2.0")  # doctest: +SKIP

        Args:
            repo_id: ``owner/name``, with or without ``@revision``; created if it does not exist.
            commit_message: The title of the commit.
            private: Whether a new repository is private. The default is set by the owner's account.
            token: The access token; by default the token of ``hf auth login`` or HF_TOKEN.
            revision: The branch; main by default. It is created if it does not exist.
            create_pr: Whether to open a pull request instead.
            allow_patterns, ignore_patterns: Which files to upload.
            delete_patterns: Which files of the repository to delete in the same commit.
            license: The Hub's identifier of the license, as in "apache-2.0" or "mit".
            model_card_kwargs: Further metadata of the card: language, datasets, tags and space.
                ``space`` is the "owner/name" of a Space on the Hub that the card links to;
                ``reviewgen.export.html.push_with_space`` publishes such a Space.
            allow: The kinds of findings to ignore: email, url, phone, handle, copies, license,
                text. The finding ``text`` means that the novelty index contains the whole training
                text, as after a training with ``novelty=exact``.
            copy_limit: The maximum share of the 20-token windows of the texts that may occur in the
                training text; 0.5 if not given.
            dtype: The dtype of a network's published weights. By default the saved dtype; "float32"
                if the model is not saved, or its weights may have changed.
            dry_run: Whether to make all checks and publish nothing; returns the address of the
                repository.

        Raises:
            NotPublished: The scan found something that is not allowed.
            HubError: The Hub cannot be reached, or refused the request.
            SourceError: ``repo_id`` is not the name of a repository.
            ConfigError: An argument is out of range, or contradicts an edited card that is kept.
            BundleError: The folder from which the model was loaded is gone or damaged.
            StorageError: There is no disk space for a copy of the model.
        """
        from reviewgen.hub.publish import publish

        refuse_unknown_options(options, PushOptions, "push_to_hub", others=("repo_id",))
        return publish(self.bundle, repo_id, options, type(self))

    @property
    def generator(self) -> Generator:
        """A ``Generator`` that uses the current weights.

        Raises:
            GenerationError: The weights were set to NaN or infinity.
        """
        try:
            stepper = self.bundle.weights.stepper()
        except BundleError as error:
            raise GenerationError(str(error)) from None
        return Generator(
            stepper,
            self.tokenizer,
            pieces=self._pieces,
            index=self.bundle.index,
            score=self._scorer(),
            batch_size=choose_batch_size(self.device),
        )

    @cached_property
    def _pieces(self) -> TokenTexts:
        """The text of each token, and the words that tokens may spell."""
        return TokenTexts(self.tokenizer, self.bundle.lexicon, self.bundle.bigrams)

    def _request(self, prompt: str | Sequence[str], options: GenerateKwargs) -> Request:
        """Check the arguments of a call of ``generate``, and return them as a request."""
        if (judge := options.get("judge")) is not None:
            options = {**options, "judge": self._judge(judge)}
        request = make_request(
            prompt, self.generation_config, options, self.tokenizer, self.conditions
        )
        return replace(request, device=self.device)

    def _judge(self, judge: Any) -> Judge:
        """Return the function that rates a text for ``best_of``, given the text and its prompt."""
        if isinstance(judge, ReviewModel):
            # an empty text has no bits per character
            return lambda text, prompt: (
                -judge.score(text, prompt).bits_per_character if text else -math.inf
            )
        if isinstance(judge, str):
            from reviewgen.evaluation.metrics import judge_by_metric

            words = frozenset(word.casefold() for word in self.bundle.lexicon or ())
            return judge_by_metric(judge, words)
        if not callable(judge):
            raise ConfigError(
                f"judge must be a model, the name of a metric, or a function; got {quoted(judge)}."
            )
        return judge  # type: ignore[no-any-return]

    def _scorer(self) -> Callable[[list[int], int], list[float]]:
        """Return the function with which a generator scores its texts. Torch is imported only when
        the function is called.
        """
        weights = self.bundle.weights
        device = weights.device
        # on an accelerator, the copy of the model that generates the texts; None on the CPU, where
        # the model is built only when ``score`` is called
        on_device = None if device == "cpu" else weights.model_on_device

        def score(ids: list[int], given: int) -> list[float]:
            """Return the log probability (nats) of each id after the first ``given`` ids."""
            from reviewgen.evaluation.evaluate import log_probabilities

            model = weights.model if on_device is None else on_device
            return log_probabilities(model, ids, given, device)

        return score


def check_model(name: str, value: Any) -> None:
    """Check that an argument is a ReviewModel.

    Raises:
        ConfigError: The value is not a ReviewModel.
    """
    if not isinstance(value, ReviewModel):
        raise ConfigError(
            f"{name} must be a trained model, as reviewgen.load returns it; got {quoted(value)}."
        )


def _unpickle(files: Mapping[str, bytes], weight_bits: int, origin: str | None) -> ReviewModel:
    """Return the model that ``ReviewModel.__reduce__`` has pickled as ``files``, the content of
    each file of a saved folder by its name.
    """
    with temporary_folder() as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        bundle = read_bundle(folder, weight_bits)
    bundle.folder = None
    bundle.digests = {}
    bundle.origin = origin
    return ReviewModel(bundle)
