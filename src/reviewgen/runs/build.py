"""Builds the model of a run: in the size that a time budget allows, and with the user's initial
weights.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from reviewgen.config.settings import to_dict
from reviewgen.data.tokens import tokens_of
from reviewgen.errors import Detail
from reviewgen.evaluation.evaluate import sample_documents
from reviewgen.hub.card import file_name
from reviewgen.processes import all_processes, process_state
from reviewgen.protocols.checks import check_contract
from reviewgen.protocols.model import LanguageModel
from reviewgen.registry.metadata import OWN
from reviewgen.runs.corpus import PreparedCorpus
from reviewgen.runs.measure import evaluate
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.record import RunRecord
from reviewgen.training.sizing import choose_size
from reviewgen.version import __version__


def build_model(
    plan: TrainingPlan, corpus: PreparedCorpus, record: RunRecord, *, is_resumed: bool
) -> LanguageModel:
    """Return the model to train, with the tensors of the user's file of initial weights. What was
    chosen, and what the trained model is compared with, is recorded.

    Args:
        plan: The plan of the run.
        corpus: Its corpus.
        record: Its record. If the run is resumed, it has the size that was chosen before.
        is_resumed: Whether the run is resumed.

    Raises:
        ConfigError: The initial weights do not fit, or there is not enough memory.
        BrokenPlugin: The model of a third party violates the contract of models.
        TrainingError: The processes of a launcher have different settings.
    """
    if not is_resumed:
        record.size = _choose_size(plan, corpus, record)
    setup = plan.setup if record.size is None else plan.setup.sized(**record.size)
    record.training = setup.training
    model = setup.build_model(corpus.tokenizer, corpus.conditions, plan.seed)
    if setup.initial_weights is not None:
        record.initial_tensors = setup.initial_weights.copy_into(model)
        names = ", ".join(record.initial_tensors)
        record.note(
            Detail(
                f"Initial weights from {setup.initial_weights.file.name}: {names}; the others are"
                " random."
            )
        )
    plugin = setup.model_plugin
    is_third_party = plugin.package != OWN
    if is_third_party and isinstance(model, torch.nn.Module) and not setup.is_counted:
        is_sampled = setup.training.sampled_softmax > 0
        check_contract(model, plugin.name, plugin.package, is_sampled=is_sampled)
    with all_processes() as processes:
        processes.refuse_differences(
            {
                "the corpus": [corpus.texts.fingerprint, corpus.conditions.to_json()],
                "model settings": to_dict(model.config),
                "versions": [__version__, torch.__version__],
                "the seed": plan.seed,
                "settings": plan.facts() | {"seed": None},
            }
        )
    _measure_before(plan, corpus, record, model)
    return model


def _measure_before(
    plan: TrainingPlan, corpus: PreparedCorpus, record: RunRecord, model: Any
) -> None:
    """Measure what the trained model is compared with: the copy rate of the held-out texts, and the
    bits per character of a model that is trained further, which are noted for the user.
    """
    setup = plan.setup
    documents = sample_documents(corpus.stores["validation"], setup.training.evaluation_tokens)
    if corpus.index is not None:
        texts = (tokens_of(ids, corpus.tokenizer.vocab_size) for ids, _ in documents)
        record.token_copy_rate = corpus.index.token_copy_rate(texts)
    if setup.trained is None:
        return
    device = process_state().device
    evaluation = evaluate(
        model.to(device).eval(), documents, corpus.tokenizer.vocab_size, str(device)
    )
    model.to("cpu")
    so_far = ""
    if evaluation is not None and math.isfinite(evaluation.bits_per_character):
        bits = evaluation.bits_per_character
        record.bits_before = bits
        so_far = f", which takes {bits:.4f} bits per character of the held-out texts so far"
    name = file_name(setup.trained.bundle.origin or "a trained model")
    record.note(
        f"Training {name} ({setup.preset}) further{so_far}; the learning rate peaks at"
        f" {setup.training.learning_rate:.3g}."
    )


def _choose_size(
    plan: TrainingPlan, corpus: PreparedCorpus, record: RunRecord
) -> dict[str, Mapping[str, Any]] | None:
    """Choose the largest model of a preset, and the batch size, that can be trained in the time
    budget on a CPU.

    With several processes, the main process times some steps, and all use its result. It ignores
    the other processes, since they make a training on CPUs only a little faster.

    Returns:
        The settings of the size, by group. None if the user has set a size, the preset has no
        sizes, the length is not a time, or the device is not a CPU.
    """
    setup = plan.setup
    seconds = plan.length.seconds
    train = corpus.stores["train"]
    if setup.sizes is None or seconds is None or process_state().device.type != "cpu":
        return None
    key = plan.preset, seconds
    if key in corpus.sizes:
        # another training with this preset and budget has chosen the size
        return setup.not_own(corpus.sizes[key])

    def build(size: Mapping[str, Any]) -> LanguageModel:
        """Return a model with the settings of a size, which is only timed."""
        return setup.sized(size, {}).build_model(corpus.tokenizer, corpus.conditions, seed=0)

    choose = partial(
        choose_size,
        setup.sizes,
        build,
        setup.training,
        seconds,
        train.count,
        int(train.characters.sum()),
        # the batch may grow only if the user has set neither of these
        may_grow=not {"training.batch_size", "training.bptt"} & setup.own,
    )
    with all_processes() as processes:
        sizing = processes.main(choose, plan.out)
    if sizing is None:
        return None
    record.note(Detail(sizing.describe(seconds)))
    size = {"model": sizing.model, "training": sizing.training}
    corpus.sizes[key] = size
    return size
