"""Bits per character of a model, by several processes that share the texts: bit for bit those of one process."""

from typing import Any, Unpack

from reviewgen.config import EvaluateOptions, refuse_unknown_options
from reviewgen.data import read_documents, trained_on
from reviewgen.evaluation import Document, Evaluation, Totals, add_up, add_up_documents, batches
from reviewgen.generation.request import device_facts
from reviewgen.model import ReviewModel
from reviewgen.processes import all_processes, everywhere
from reviewgen.receipts import library_versions
from reviewgen.writing.devices import move
from reviewgen.writing.inputs import name_source, reading_errors, share_batches


def evaluate(
    model: str | Any, source: Any, device: str = "auto", **options: Unpack[EvaluateOptions]
) -> tuple[ReviewModel, Evaluation]:
    """Evaluate a model that all processes of a launcher load; return the model and its evaluation.

    Args:
        model: What ``reviewgen.load`` takes.
        source: The texts.
        device: As in ``reviewgen.score_dataset``.
        options: As in ``ReviewModel.evaluate``.

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
        move(models[0], device)

    with all_processes() as processes:
        everywhere(processes, check, model)
        facts = {
            "model": models[0].digest,
            "source": name_source(source),
            "options": dict(options),
            **device_facts(models[0].device),
            "versions": library_versions(models[0], ()),
        }
        everywhere(processes, lambda: processes.refuse_differences(facts), model)
        trained, conditions, tokenizer = trained_on(models[0].training), models[0].conditions, models[0].tokenizer
        weights = models[0].bundle.weights
        documents = read_documents(source, tokenizer, trained, conditions=conditions, **options)

        def add_batch(number: int, batch: list[Document]) -> None:
            totals[number] = add_up_documents(
                weights.model_on_device, batch, tokenizer.vocab_size, weights.device, len(conditions)
            )

        count = share_batches(processes, batches(documents), add_batch, source, content=_content, place=source)
        everyone = {number: one for own in processes.all_gather_object(totals) for number, one in own.items()}
        return models[0], add_up([everyone[number] for number in range(count)]).evaluation()


def _content(batch: list[Document]) -> bytes:
    return b"".join(ids.tobytes() for ids, _ in batch) + str([characters for _, characters in batch]).encode()
