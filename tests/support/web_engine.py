"""The browser engine in Node, for tests: questions in, answers out; see ``javascript/run_engine.mjs``."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reviewgen.export import pack
from reviewgen.model import Bundle
from reviewgen.registry import find_web_stepper, find_web_tokenizer
from reviewgen.web import static_files
from tests.support.node import run_node

SCRIPT = Path(__file__).parent / "javascript" / "run_engine.mjs"
FAKE = """export default (name, config, tensors) => {
  const { shape: [, width], data } = tensors.table;
  const forward = (ids, state) => ({ logits: data.slice(ids.at(-1) * width, (ids.at(-1) + 1) * width), state });
  return { initialState: () => 0, forward };
};"""
"""The stepper of ``tests.support.fakes.TableModel`` in JavaScript."""
NAMES = ("ngram", "nnlm", "rnn", "gru", "lstm", "blend")


def ask_all(folder: Path, questions: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the answers to questions, in one run of Node; each has its name under "ask"."""
    file = folder / "questions.json"
    root = static_files()["model.js"].parent
    file.write_text(json.dumps({"root": str(root), "questions": questions}), encoding="utf-8")
    answers: list[Any] = json.loads(run_node(SCRIPT, str(file)))
    return answers


def ask(folder: Path, name: str, **question: Any) -> Any:
    """Return the answer to a question."""
    return ask_all(folder, [{"ask": name, **question}])[0]


def tokenizer_source(name: str) -> str:
    """Return the JavaScript of a tokenizer."""
    file = find_web_tokenizer(name)
    assert file is not None
    return file.read_text(encoding="utf-8")


def steppers() -> dict[str, str]:
    """Return the JavaScript of each stepper, the fake one too."""
    files = {name: find_web_stepper(name) for name in NAMES}
    return {"fake": FAKE} | {name: file.read_text(encoding="utf-8") for name, file in files.items() if file is not None}


def write_packed(folder: Path, bundle: Bundle, bits: int = 32) -> dict[str, Any]:
    """Pack a model into a folder, and return it as a question names it."""
    packed = pack(bundle, bits=bits)
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(packed.manifest), encoding="utf-8")
    (folder / "blob.bin").write_bytes(packed.blob)
    sources = {name: tokenizer_source(name) for name in ("char", "word")}
    return {"folder": str(folder), "steppers": steppers(), "tokenizers": sources}


def complete(folder: Path, bundle: Bundle, requests: Sequence[Mapping[str, Any]], bits: int = 32) -> list[Any]:
    """Return what the browser engine gives for some requests."""
    results: list[Any] = ask(folder, "complete", model=write_packed(folder, bundle, bits), requests=requests)
    return results
