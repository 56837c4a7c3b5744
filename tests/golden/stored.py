"""The stored JSON files, and what the last bits of a score depend on."""

import json
import platform
import re
from pathlib import Path
from typing import Any

import torch
from llvmlite.binding import get_host_cpu_name


def read_stored(name: str) -> Any:
    return json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))


def write_stored(name: str, value: Any, indent: int = 1) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    # numbers on one line
    text = re.sub(r"\[\n([-+.\d\s,enul]+)\]", lambda match: f"[{' '.join(match[1].split())}]", text)
    (Path(__file__).parent / f"{name}.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def arithmetic() -> dict[str, str]:
    """Return the processor and the version of PyTorch: where they differ from the stored ones, a
    sampled token may differ.
    """
    processor = {"machine": platform.machine(), "processor": get_host_cpu_name()}
    return processor | {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
