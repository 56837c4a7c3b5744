"""``ModelTraining``: builds a model, in the size that a time budget allows, and trains it on a
prepared corpus.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from reviewgen.config.settings import to_dict
from reviewgen.data.tokens import tokens_of
from reviewgen.errors import Detail
from reviewgen.evaluation.evaluate import sample_documents
from reviewgen.evaluation.metrics import TextMetrics
from reviewgen.hub.card import file_name
from reviewgen.processes import all_processes, process_state
from reviewgen.protocols.checks import check_contract
from reviewgen.protocols.model import LanguageModel
from reviewgen.registry.metadata import OWN
from reviewgen.runs.corpus import PreparedCorpus
from reviewgen.runs.measure import evaluate
from reviewgen.runs.plan import TrainingPlan
from reviewgen.runs.record import RunRecord
from reviewgen.runs.setup import TrainingSetup, dotted
from reviewgen.runs.tracking import RunLog
from reviewgen.training.checkpoints import Checkpoints
from reviewgen.training.loop import fit
from reviewgen.training.report import Report
from reviewgen.training.sizing import choose_size
from reviewgen.version import __version__


@dataclass(eq=False)
class ModelTraining:
    """The training of one model: iterate over it for a report of each step. Afterwards the model
    holds its best weights.

    Args:
        plan: The plan of the training.
        corpus: The prepared corpus.
        record: Records the training.
        checkpoints: Saves the state of a training by gradient. If a checkpoint has been loaded, the
            training resumes from it.
        log: The log in a tracker.

    Attributes:
        model: The model.
        metrics: The metrics of generated texts.
        parts: The trainings of a blend's models; none for a single model.

    Raises:
        ConfigError: The model or its initial weights do not fit.
        BrokenPlugin: The model violates the contract of models.
        TrainingError: The processes of a launcher have different settings.
    """

    plan: TrainingPlan
    corpus: PreparedCorpus
    record: RunRecord
    checkpoints: Checkpoints
    log: RunLog
    parts: Sequence["ModelTraining"] = ()

    def __post_init__(self) -> None:
        plan = self.plan
        corpus = self.corpus
        record = self.record
        self.metrics = TextMetrics(plan.setup.training.metrics, corpus.words)
        record.begin(corpus, self.checkpoints.extra)
        if not self.checkpoints.extra:
            record.size = _choose_size(plan, corpus, record)
        setup = plan.setup if record.size is None else plan.setup.sized(**record.size)
        record.training = setup.training
        self.model: LanguageModel = _build_model(setup, plan.seed, corpus, record)
        with all_processes() as processes:
            processes.refuse_differences(
                {
                    "the corpus": [corpus.texts.fingerprint, corpus.conditions.to_json()],
                    "model settings": to_dict(self.model.config),
                    "versions": [__version__, torch.__version__],
                    "the seed": plan.seed,
                    "settings": plan.facts() | {"seed": None},
                }
            )
        self._measure_before()
        self.checkpoints.snapshot = record.to_checkpoint

    def _measure_before(self) -> None:
        """Measure what the trained model is compared with: the copy rate of the held-out texts, and
        the bits per character of a model that is trained further, which are noted for the user.
        """
        corpus = self.corpus
        setup = self.plan.setup
        documents = sample_documents(corpus.stores["validation"], setup.training.evaluation_tokens)
        if corpus.index is not None:
            texts = (tokens_of(ids, corpus.tokenizer.vocab_size) for ids, _ in documents)
            self.record.token_copy_rate = corpus.index.token_copy_rate(texts)
        if setup.trained is None:
            return
        device = process_state().device
        model: Any = self.model
        evaluation = evaluate(
            model.to(device).eval(), documents, corpus.tokenizer.vocab_size, str(device)
        )
        model.to("cpu")
        so_far = ""
        if evaluation is not None and math.isfinite(evaluation.bits_per_character):
            bits = evaluation.bits_per_character
            self.record.bits_before = bits
            so_far = f", which takes {bits:.4f} bits per character of the held-out texts so far"
        name = file_name(setup.trained.bundle.origin or "a trained model")
        self.record.note(
            f"Training {name} ({setup.preset}) further{so_far}; the learning rate peaks at"
            f" {setup.training.learning_rate:.3g}."
        )

    def __iter__(self) -> Iterator[Report]:
        """Train, and yield a report for each step.

        Raises:
            TrainingError: The training has failed; see ``fit``.
        """
        plan = self.plan
        corpus = self.corpus
        config = self.record.training
        reports = fit(
            self.model,
            corpus.tokenizer,
            corpus.stores["train"],
            corpus.stores["validation"],
            config,
            plan.length,
            plan.seed,
            corpus.index,
            corpus.conditions.unspecified_ids,
            self.checkpoints,
            self.metrics,
            all_evaluations="training.evaluations" in plan.setup.own,
        )
        used = {"model": to_dict(self.model.config), "training": to_dict(config)}
        with self.log.opened(plan.facts() | dotted(used)):
            for report in reports:
                yield self.log.record(report, self.record.add(report))

    def complete(self) -> None:
        """Do nothing: the model is complete once it was trained for a step."""


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


def _build_model(setup: TrainingSetup, seed: int, corpus: PreparedCorpus, record: RunRecord) -> Any:
    """Return the model to train, with the tensors of the user's file of initial weights. The model
    of a third party is checked.

    Raises:
        ConfigError: The initial weights do not fit.
        BrokenPlugin: The model violates the contract of models.
    """
    model = setup.build_model(corpus.tokenizer, corpus.conditions, seed)
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
    return model
