"""Exports a model as a folder for ONNX runtimes. The folder has the graph, the tokenizer and the
settings.

Before the folder appears, onnxruntime runs the graph, and its logits are compared with those of the
model. Torch's exporter makes the graph, which has these inputs and outputs::

    ids (B, T), state_0, state_1, ...   ->   logits (B, T, V), new_state_0, new_state_1, ...

The tensors of a state are those of the model's nested tuple, in the same order. The state before
the first token is subtracted from each state, so that for every model the initial state of the
graph is zeros. Torch cannot export a loop over time: tracing unrolls it into the steps of the
traced call. So there are two ways to make the graph:

    whole   traces the call over T tokens, with a dynamic T; fails if the model loops over time
    step    traces the call with one token, and repeats it with ONNX's Scan; by the law *chunks* of
            the contract, the logits are the same
"""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jaxtyping
import numpy as np
import torch
from torch import Tensor, nn

from reviewgen.blending.model import Blend, CharacterModel
from reviewgen.config.bounded import dump_json
from reviewgen.errors import ConfigError, PluginError, first_line, quoted
from reviewgen.export.folders import ONNX, check_target, export_folder, write_tokenizer
from reviewgen.generation.decode import SAMPLING_SETTINGS
from reviewgen.generation.states import map_state
from reviewgen.model.review_model import ReviewModel, check_model
from reviewgen.protocols.model import CountTrained, LanguageModel, flatten_state

if TYPE_CHECKING:
    from onnx import ModelProto

GRAPH = "model.onnx"
SETTINGS = "generation_config.json"
PASSAGE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age"
    " of foolishness, it was the epoch of belief, it was the epoch of incredulity. «Très bien», she"
    " said; 10/10 👍"
)
CHECKED_TOKENS = 200  # number of tokens of each checked text
CHUNK_ENDS = (1, 3, 20)  # positions at which a checked text is split into chunks
TOLERANCE = 1e-4  # maximum difference of a logit
TRACED_BATCH = 2  # rows of the traced call; not 1, since torch treats sizes of 0 and 1 as constants
TRACED_TIME = 5  # tokens in each of these rows; not 1 for the same reason


class OnnxExport(NamedTuple):
    """An exported model.

    Attributes:
        folder: The folder of the export.
        megabytes: The size of the graph in megabytes.
        largest_difference: The largest difference between the logits of the graph and those of the
            model, on the checked texts.
        tokenizer_json: Whether the folder has the tokenizer in the format of the library
            tokenizers.
    """

    folder: Path
    megabytes: float
    largest_difference: float
    tokenizer_json: bool


def export_onnx(model: ReviewModel, folder: Path, *, overwrite: bool = False) -> OnnxExport:
    """Write a model as ONNX, with its tokenizer and settings. Before the folder appears, the logits
    of onnxruntime are compared with those of the model.

    Args:
        model: A model that was trained by gradient descent, or a blend of such models.
        folder: The new folder.
        overwrite: Whether to replace an earlier export there.

    Raises:
        ConfigError: The extra ``onnx`` is not installed, or the model was trained by counting, or
            the model is a blend of models with different tokenizers.
        PluginError: The model cannot be exported, or onnxruntime gives other logits than the model.
        OutputExists: The folder exists, and ``overwrite`` is false or it is not an earlier export.
        StorageError: The disk is full, or the folder cannot be written; nothing is left behind.
    """
    check_model("model", model)
    folder = check_target(folder, ONNX, overwrite)
    _require_packages()
    bundle = model.bundle
    name = bundle.model_plugin.name
    _refuse_counts(bundle.model, name)
    with export_folder(folder, ONNX, overwrite) as scratch:
        has_json = write_tokenizer(bundle, scratch)
        try:
            difference = _write_graph(scratch / GRAPH, bundle.model, _texts_to_check(model))
        except PluginError as error:
            raise PluginError(
                f"The model {quoted(name)} cannot be exported to ONNX: {error} Use `reviewgen"
                " serve` instead."
            ) from None
        (scratch / SETTINGS).write_bytes(dump_json(_settings(model)))
        megabytes = (scratch / GRAPH).stat().st_size / 1e6
    return OnnxExport(folder, megabytes, difference, has_json)


def _require_packages() -> None:
    """Raise unless the packages of the extra ``onnx`` are installed."""
    for package in ("onnx", "onnxruntime", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError:
            raise ConfigError(
                f"ONNX needs {package}, which is not installed: pip install 'reviewgen[onnx]'."
            ) from None


def _refuse_counts(model: LanguageModel, name: str) -> None:
    """Refuse a model that was trained by counting, a blend that contains such a model, and a blend
    of models with different tokenizers.
    """
    components = model.components if isinstance(model, Blend) else (model,)
    if any(isinstance(component, CharacterModel) for component in components):
        raise ConfigError(
            "ONNX has no form of a blend of models with different tokenizers. Use `reviewgen serve`"
            " instead."
        )
    counted = [component for component in components if isinstance(component, CountTrained)]
    if counted:
        subject = quoted(name)
        if isinstance(model, Blend):
            subject = f"a part of {subject}, {type(counted[0]).__name__},"
        raise ConfigError(
            f"ONNX is for models that are trained by gradient; {subject} was trained by counting,"
            " and looks its counts up. For a browser use `reviewgen export MODEL --out PAGE.html`,"
            " for a server `reviewgen serve MODEL`."
        )


def _texts_to_check(model: ReviewModel) -> list[list[int]]:
    """Return the token ids of the texts for the check: a passage with unusual characters, and two
    texts that the model generates. Each is repeated up to CHECKED_TOKENS tokens.
    """
    settings = {
        "max_new_tokens": CHECKED_TOKENS,
        "min_new_tokens": 0,
        "do_sample": True,
        "num_beams": 1,
    }
    generated = model.generate("", num_return_sequences=2, seed=0, generation_config=settings)
    start = _start_ids(model)
    rows = []
    for text in (PASSAGE, *generated):
        ids = [*start, *model.tokenizer.encode(text), model.tokenizer.eos_id]
        rows.append(list(islice(cycle(ids), CHECKED_TOKENS)))
    return rows


def _write_graph(file: Path, model: LanguageModel, texts: Sequence[Sequence[int]]) -> float:
    """Write the first graph with which onnxruntime gives the logits of the model. Return the
    largest difference of a logit.

    Raises:
        PluginError: Neither graph gives these logits. The message is about the last one.
    """
    import onnx

    together = torch.tensor([list(text) for text in texts])  # (B, T)
    batches = [*together[:, None], together]  # each text alone, then all in one batch
    problem = ""
    for make_graph in (export_whole, export_step):  # try the faster graph first
        try:
            onnx.save_model(make_graph(model), file)
            worst = float(np.max([_difference(file, model, ids) for ids in batches]))
        except OSError:
            raise  # such as a full disk
        # torch, its tracer, onnxruntime and the plugin's code may raise any exception
        except Exception as error:
            problem = f"{first_line(_cause(error)):.200}."
            continue
        if worst <= TOLERANCE:  # false for NaN, too
            return worst
        problem = (
            f"its logits there differ by {worst:.2g} from those of the model; at most {TOLERANCE:g}"
            " is accepted."
        )
    raise PluginError(problem)


def _cause(error: BaseException) -> BaseException:
    """Return the original exception in a chain of exceptions."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _difference(file: Path, model: LanguageModel, ids: Tensor) -> float:
    """Return the largest difference between the logits of the file and those of the model. The file
    is run on whole texts and on texts in chunks. Returns NaN if a logit is NaN.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # only errors
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    first_state = model.initial_state(len(ids))
    names, _ = names_of(len(flatten_state(first_state)))  # the names of the inputs
    with torch.no_grad():
        expected = model(ids, first_state)[0].float().numpy()
    differences = []
    # one chunk with all tokens, then several chunks, (B, tokens) each
    for chunks in ([ids.numpy()], np.split(ids.numpy(), CHUNK_ENDS, axis=1)):
        state = [np.zeros(part.shape, part.numpy().dtype) for part in flatten_state(first_state)]
        logits = []
        for chunk in chunks:
            inputs = dict(zip(names, (chunk, *state), strict=True))
            chunk_logits, *state = session.run(None, inputs)
            logits.append(chunk_logits)
        differences.append(float(np.abs(np.concatenate(logits, axis=1) - expected).max()))
    return float(np.max(differences))  # unlike Python's, numpy's max of NaN is NaN


def _start_ids(model: ReviewModel) -> list[int]:
    """Return the ids before each generated text: bos and the conditions."""
    return [model.tokenizer.bos_id, *model.conditions.encode(model.generation_config.conditions)]


def _settings(model: ReviewModel) -> dict[str, Any]:
    """Return the settings that a program needs to generate. Their names are those in transformers,
    except for the settings of the start and of the conditions.
    """
    config = model.generation_config
    tokenizer = model.tokenizer
    conditions = model.conditions
    ids = {}
    for condition, first_id in zip(conditions.fixed, conditions.open_ids, strict=True):
        # "" is the label of the unspecified value, which has the first id
        labels = ["", *(value.label for value in condition.values)]
        ids[condition.name] = {label: first_id + index for index, label in enumerate(labels)}
    first_marker_id = conditions.first_id + conditions.condition_ids
    fields = {
        field.name: {"marker_id": marker_id, "lowercase": field.lowercase}
        for marker_id, field in enumerate(conditions.fields, first_marker_id)
    }
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "do_sample": True,
        **{name: getattr(config, name) for name in SAMPLING_SETTINGS},
        "temperature": config.temperatures[0],
        "max_new_tokens": config.max_new_tokens,
        "suppress_tokens": [tokenizer.bos_id, *range(tokenizer.vocab_size, conditions.vocab_size)],
        "start_ids": _start_ids(model),
        "condition_ids": ids,
        "fields": fields,
    }


def names_of(count: int) -> tuple[list[str], list[str]]:
    """Return the names of the inputs and of the outputs of a graph. ``count`` is the number of
    tensors in its state.
    """
    states = [f"state_{number}" for number in range(count)]
    return ["ids", *states], ["logits", *(f"new_{name}" for name in states)]


class _Flat(nn.Module):
    """A model whose state is passed as separate tensors. The state before the first token is
    subtracted from each of them, so that they start as zeros.
    """

    def __init__(self, model: LanguageModel, is_step: bool = False) -> None:
        super().__init__()
        self.model = model
        self.is_step = is_step
        self.initial_state = model.initial_state(1)
        self.first_tensors = flatten_state(self.initial_state)
        # None for tensors that are zero in the first state, so that the graph does not add zeros
        self.shifts = [tensor if tensor.any() else None for tensor in self.first_tensors]

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Return the logits and the tensors of the new state. With ``is_step``, ids are (B,) and
        logits (B, V); otherwise ids are (B, T) and logits (B, T, V).
        """
        shifted = (
            _shift(tensor, shift, 1) for tensor, shift in zip(state, self.shifts, strict=True)
        )
        # the nested tuple of the model, with the tensors in order
        before = map_state(lambda _: next(shifted), self.initial_state)
        logits, after = self.model(ids[:, None] if self.is_step else ids, before)
        changed = (
            _shift(tensor, shift, -1)
            for tensor, shift in zip(flatten_state(after), self.shifts, strict=True)
        )
        return (logits[:, 0] if self.is_step else logits).float(), *changed


def _shift(tensor: Tensor, shift: Tensor | None, sign: int) -> Tensor:
    """Add ``shift``, a tensor of the first state, to a tensor of a state, or subtract it. If
    ``shift`` is None, return the tensor unchanged.
    """
    if shift is None:
        return tensor
    if tensor.dtype == torch.bool:
        return tensor ^ shift  # exclusive or is its own inverse
    return tensor + shift if sign > 0 else tensor - shift


@torch.no_grad()
def export_whole(model: LanguageModel) -> "ModelProto":
    """Return the graph of one call of the model over T tokens."""
    flat = _Flat(model)
    ids = torch.zeros(TRACED_BATCH, TRACED_TIME, dtype=torch.long)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    exported = _trace(flat, ids, axes, flat.first_tensors, names_of(len(flat.first_tensors)))
    _set_shapes(exported.graph, flat)
    return exported


@torch.no_grad()
def export_step(model: LanguageModel) -> "ModelProto":
    """Return a graph that repeats the call of the model with one token."""
    from onnx import helper

    flat = _Flat(model)
    inputs, outputs = names_of(len(flat.first_tensors))
    step_names = (
        ["id", *(f"{name}_before" for name in inputs[1:])],
        ["scores", *(f"{name}_after" for name in inputs[1:])],
    )
    ids = torch.zeros(TRACED_BATCH, dtype=torch.long)
    axes = {0: torch.export.Dim("batch")}
    exported = _trace(_Flat(model, is_step=True), ids, axes, flat.first_tensors, step_names)
    step = exported.graph
    # Scan calls the body, one step, for each token: the tensors of the state go from one call to
    # the next, and ids and logits are cut and joined along axis 1, the time.
    body = helper.make_graph(
        step.node, "step", _rotate(step.input), _rotate(step.output), value_info=step.value_info
    )
    scan = helper.make_node(
        "Scan",
        _rotate(inputs),
        _rotate(outputs),
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[1],
        scan_output_axes=[1],
    )
    graph = helper.make_graph([scan], "model", [], [], initializer=step.initializer)
    _set_shapes(graph, flat)
    return helper.make_model(
        graph,
        opset_imports=exported.opset_import,
        functions=exported.functions,
        ir_version=exported.ir_version,
    )


def _rotate(values: Any) -> list[Any]:
    """Move the first value to the end, since the state comes first in ONNX's Scan."""
    first, *others = values
    return [*others, first]


def _trace(
    module: nn.Module,
    ids: Tensor,
    axes: Mapping[int, Any],
    first_tensors: list[Tensor],
    names: tuple[list[str], list[str]],
) -> "ModelProto":
    """Return the graph of a module that takes ids and a state.

    Args:
        module: The module.
        ids: The ids for the traced call.
        axes: The axes of the ids whose sizes are dynamic. The first is the batch.
        first_tensors: The tensors of the initial state, for one row.
        names: The names of the inputs and of the outputs.
    """
    state = tuple(part.new_zeros(TRACED_BATCH, *part.shape[1:]) for part in first_tensors)
    shapes = {"ids": axes, "state": tuple({0: axes[0]} for _ in state)}
    with _quiet():
        program = torch.export.export(module.eval(), (ids, *state), dynamic_shapes=shapes)
        exported = torch.onnx.export(
            program, (), dynamo=True, input_names=names[0], output_names=names[1], verbose=False
        )
    assert exported is not None  # torch returns a program if dynamo is True
    return exported.model_proto


def _set_shapes(graph: Any, flat: _Flat) -> None:
    """Replace the inputs and outputs of a graph by descriptions whose dynamic axes have names."""
    from onnx import TensorProto, helper

    # (1, 1, V), of which only V is used
    logits, _ = flat.model(torch.zeros(1, 1, dtype=torch.long), flat.initial_state)
    # the type and shape of each tensor of the state
    state_specs = [
        (helper.np_dtype_to_tensor_dtype(part.numpy().dtype), ["batch", *part.shape[1:]])
        for part in flat.first_tensors
    ]
    inputs, outputs = names_of(len(state_specs))
    ids_spec = (TensorProto.INT64, ["batch", "time"])
    logits_spec = (TensorProto.FLOAT, ["batch", "time", logits.shape[-1]])
    for values, names, spec in (
        (graph.input, inputs, ids_spec),
        (graph.output, outputs, logits_spec),
    ):
        del values[:]
        values.extend(
            helper.make_tensor_value_info(name, *name_spec)
            for name, name_spec in zip(names, [spec, *state_specs], strict=True)
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what the exporter warns, logs and prints, since it is about torch's own code. Errors
    are still raised.

    The run-time checks of jaxtyping are turned off, because sizes are symbols instead of numbers
    while torch traces.
    """
    log_level = logging.root.manager.disable
    is_unchecked = jaxtyping.config.jaxtyping_disable
    logging.disable(logging.ERROR)
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(log_level)
        jaxtyping.config.update("jaxtyping_disable", is_unchecked)
