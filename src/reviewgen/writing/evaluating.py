"""Bits per character of a model, by several processes that share the texts: bit for bit those of one process."""

from typing import Any, Unpack

from reviewgen.config import EvaluateOptions, refuse_unknown_options
from reviewgen.data import read_documents, trained_on
from reviewgen.errors import ConfigError
from reviewgen.evaluation import Document, Evaluation, Totals, add_up, add_up_documents, batches
from reviewgen.model import ReviewModel
from reviewgen.training import all_processes
from reviewgen.training.rounds import everywhere, share_stream
from reviewgen.writing.inputs import name_source, read_all, reading_errors

__all__ = ["evaluate", "refuse_standard_input"]


def evaluate(model: str | Any, source: Any, **options: Unpack[EvaluateOptions]) -> tuple[ReviewModel, Evaluation]:
    """Evaluate a model that all processes of a launcher load; return the model and its evaluation.

    Raises:
        ReviewgenError: See ``ReviewModel.evaluate`` and ``reviewgen.load``.
        ProcessLost: Another process has failed or ended.
    """
    models: list[ReviewModel] = []
    totals: dict[int, Totals] = {}

    def check() -> None:
        refuse_unknown_options(options, EvaluateOptions, "evaluate")
        with reading_errors(model):
            models.append(ReviewModel.from_pretrained(model))

    with all_processes() as processes:
        everywhere(processes, check, model)
        facts = {"model": models[0].digest, "source": name_source(source), "options": dict(options)}
        everywhere(processes, lambda: processes.refuse_differences(facts), model)
        trained, conditions, tokenizer = trained_on(models[0].training), models[0].conditions, models[0].tokenizer
        language_model = models[0].bundle.model
        documents = read_documents(source, tokenizer, trained, conditions=conditions, **options)

        def add_batch(number: int, batch: list[Document]) -> None:
            totals[number] = add_up_documents(language_model, batch, tokenizer.vocab_size, given=len(conditions))

        count = share_stream(processes, read_all(batches(documents), name_source(source)), add_batch, source)
        everyone = {number: one for own in processes.all_gather_object(totals) for number, one in own.items()}
        return models[0], add_up([everyone[number] for number in range(count)]).evaluation()


def refuse_standard_input(data: str, processes: int) -> None:
    """Raise if several processes would read one standard input.

    Raises:
        ConfigError: They would.
    """
    if processes > 1 and data in ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"):
        raise ConfigError("Several processes cannot read one standard input: write the texts to a file, and give it with --data.")
