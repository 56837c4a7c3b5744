"""Says in one sentence which operation of a model cannot be exported, from the error of torch's exporter."""

import linecache
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_OPERATION = re.compile(r"No ONNX function found for (?:<OpOverload\(op=')?([\w.:]+)")
_MAX_REASON = 160  # characters
_TOOLS = {"torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "jaxtyping", "beartype", "numba", "numpy", "contextlib"}


def describe_failure(error: BaseException) -> str:
    """Return a sentence about an error: the operation without a form in ONNX, or the line of the model that cannot be traced."""
    for each in _causes(error):
        if operation := _OPERATION.search(str(each)):
            return f"ONNX has no form of its operation {operation[1]}."
    for each in _causes(error):
        if place := _last_line(each.__traceback__):
            return f"torch cannot trace {place} ({_reason(each)})."
    return f"{_reason(error)}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, the first one first."""
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    yield from reversed(chain)


def _last_line(trace: TracebackType | None) -> str | None:
    """Return the innermost line of code that belongs to the model, as in "`x.numpy()` (scan.py, line 47)"; None if none does."""
    place = None
    while trace is not None:
        file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        code = linecache.getline(file, line).strip()
        module = str(trace.tb_frame.f_globals.get("__name__"))
        if code and module.partition(".")[0] not in _TOOLS and not module.startswith("reviewgen.export"):
            place = f"`{code:.80}` ({Path(file).name}, line {line})"
        trace = trace.tb_next
    return place


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    sentence = re.split(r"(?<=[.!])\s", text)[0].rstrip(".!")
    return sentence if len(sentence) <= _MAX_REASON else sentence[:_MAX_REASON] + "…"
