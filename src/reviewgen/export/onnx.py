"""A model as a folder that any runtime of ONNX loads: graph, tokenizer and settings.

Before the folder appears, onnxruntime runs the graph, and its logits are compared with those of the model.
"""

import importlib
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reviewgen.blending.model import Blend
from reviewgen.errors import ConfigError, PluginError, first_line, quoted
from reviewgen.export.folders import ONNX, check_target, export_folder, write_json
from reviewgen.export.onnx_graph import export_step, export_whole, names_of
from reviewgen.export.tokenizer import write_tokenizer
from reviewgen.generation import flatten_state
from reviewgen.model import check_model
from reviewgen.protocols import CountTrained, LanguageModel

if TYPE_CHECKING:
    from reviewgen.model import ReviewModel

GRAPH, SETTINGS = "model.onnx", "generation_config.json"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
PASSAGE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was the "
    "epoch of belief, it was the epoch of incredulity. «Très bien», she said; 10/10 👍"
)
CHECKED_TOKENS = 200  # of each text
CHUNKS = 1, 2, 17  # tokens in the first pieces; the others come in one
TOLERANCE = 1e-4  # of a logit


class OnnxExport(NamedTuple):
    """An exported model.

    Attributes:
        folder: Its folder.
        megabytes: The size of the graph.
        largest_difference: Between its logits and those of the model, on the texts of the check.
        tokenizer_json: Whether the tokenizer is there in the format of the library tokenizers.
    """

    folder: Path
    megabytes: float
    largest_difference: float
    tokenizer_json: bool


def export_onnx(model: "ReviewModel", folder: Path, *, overwrite: bool = False) -> OnnxExport:
    """Write a model as ONNX, with its tokenizer and settings, after onnxruntime gave the model's own logits.

    Args:
        model: A model that was trained by gradient, or a blend of such models.
        folder: The new folder.
        overwrite: Whether to replace an earlier export there.

    Raises:
        ConfigError: The extra ``onnx`` is not installed, or the model was trained by counting.
        PluginError: The model cannot be exported, or onnxruntime gives other logits than the model.
        OutputExists: The folder exists, and ``overwrite`` is false or it is not an earlier export.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_model("model", model)
    folder = check_target(folder, ONNX, overwrite)
    _require_packages()
    bundle, name = model.bundle, model.bundle.model_plugin.name
    _refuse_counts(bundle.model, name)
    with export_folder(folder, ONNX, overwrite) as scratch:
        has_json = write_tokenizer(bundle, scratch)
        try:
            difference = _write_graph(scratch / GRAPH, bundle.model, _texts_to_check(model))
        except PluginError as error:
            raise PluginError(
                f"The model {quoted(name)} cannot be exported to ONNX: {error} Use `reviewgen serve` instead."
            ) from None
        write_json(scratch / SETTINGS, _settings(model))
        megabytes = (scratch / GRAPH).stat().st_size / 1e6
    return OnnxExport(folder, megabytes, difference, has_json)


def _require_packages() -> None:
    for package in PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise ConfigError(f"ONNX needs {package}, which is not installed: pip install 'reviewgen[onnx]'.") from None


def _refuse_counts(model: LanguageModel, name: str) -> None:
    parts = model.parts if isinstance(model, Blend) else (model,)
    counted = next((part for part in parts if isinstance(part, CountTrained)), None)
    if counted is None:
        return
    what = f"a part of the blend, {type(counted).__name__}, was" if isinstance(model, Blend) else f"{name!r} was"
    raise ConfigError(
        f"ONNX is for models that are trained by gradient; {what} trained by counting, and looks its counts up. For a browser "
        "use `reviewgen export MODEL --html PAGE.html`, for a server `reviewgen serve MODEL`."
    )


def _texts_to_check(model: "ReviewModel") -> list[list[int]]:
    """Return the ids of a passage (Dickens, and odd characters) and of two texts that the model generates, each repeated."""
    settings = {"max_new_tokens": CHECKED_TOKENS, "min_new_tokens": 0, "do_sample": True, "num_beams": 1}
    generated = model.generate("", num_return_sequences=2, seed=0, generation_config=settings)
    start, eos = _start_ids(model), model.tokenizer.eos_id
    rows = (cycle([*start, *model.tokenizer.encode(text), eos]) for text in (PASSAGE, *generated))
    return [list(islice(row, CHECKED_TOKENS)) for row in rows]


def _write_graph(file: Path, model: LanguageModel, texts: Sequence[Sequence[int]]) -> float:
    """Write the first graph that onnxruntime runs with the model's own logits; return the largest difference.

    Raises:
        PluginError: No way to export the model works; the message is about the last one that was tried.
    """
    import onnx

    together = torch.tensor([list(text) for text in texts])
    problem = ""
    for export in (export_whole, export_step):  # the faster graph first
        try:
            onnx.save_model(export(model), file)
            worst = float(np.max([_difference(file, model, ids) for ids in (*(row[None] for row in together), together)]))
        except OSError:
            raise  # the disk is full
        except Exception as error:  # torch, its tracer, onnxruntime and the plugin's own code raise anything
            problem = f"{first_line(_cause(error)):.200}."
            continue
        if worst <= TOLERANCE:  # and not NaN
            return worst
        problem = f"its logits there differ by {worst:.2g} from those of the model; at most {TOLERANCE:g} is accepted."
    raise PluginError(problem)


def _cause(error: BaseException) -> BaseException:
    """Return the exception that an exception was first raised from."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _difference(file: Path, model: LanguageModel, ids: Tensor) -> float:
    """Return the largest difference between logits of the file, whole and in chunks, and of the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    first = model.initial_state(len(ids))
    names = names_of(len(flatten_state(first)))[0]
    with torch.no_grad():
        expected = model(ids, first)[0].float().numpy()
    differences = []
    for pieces in ([ids.numpy()], np.split(ids.numpy(), np.cumsum(CHUNKS), axis=1)):
        state, logits = [np.zeros(part.shape, part.numpy().dtype) for part in flatten_state(first)], []
        for piece in pieces:
            scores, *state = session.run(None, dict(zip(names, (piece, *state), strict=True)))
            logits.append(scores)
        differences.append(float(np.abs(np.concatenate(logits, axis=1) - expected).max()))
    return float(np.max(differences))  # NaN if one is


def _start_ids(model: "ReviewModel") -> list[int]:
    return [model.tokenizer.bos_id, *model.conditions.encode(model.generation_config.conditions)]


def _settings(model: "ReviewModel") -> dict[str, Any]:
    """Return what a program needs to generate: the names of transformers, and two of our own."""
    config, tokenizer, conditions = model.generation_config, model.tokenizer, model.conditions
    ids = {
        condition.name: {"": first} | {value.label: first + 1 + place for place, value in enumerate(condition.values)}
        for condition, first in zip(conditions, conditions.unspecified_ids, strict=True)
    }
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "do_sample": True,
        "temperature": config.temperatures[0],
        "top_k": config.top_k,
        "top_p": config.top_p,
        "min_p": config.min_p,
        "repetition_penalty": config.repetition_penalty,
        "no_repeat_ngram_size": config.no_repeat_ngram_size,
        "max_new_tokens": config.max_new_tokens,
        "suppress_tokens": [tokenizer.bos_id, *range(tokenizer.vocab_size, conditions.vocab_size)],
        "start_ids": _start_ids(model),
        "condition_ids": ids,
    }
