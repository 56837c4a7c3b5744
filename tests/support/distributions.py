"""Fake installed packages: a folder with metadata, entry points and modules, as pip would leave
it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

Install = Callable[..., Path]

MODEL = """
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True, kw_only=True)
class Config:
    vocab_size: int

class Model(nn.Module):
    Config = Config

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def initial_state(self, batch_size):
        return ()

    def forward(self, ids, state):
        return self.table(ids), state
"""
"""The module of a model that predicts each token from the one before it."""


def write_distribution(
    site: Path,
    package: str,
    points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str] | None = None,
    version: str = "1.2.3",
) -> Path:
    """Write a package into a folder, which it returns.

    Args:
        site: The folder, to be put on ``sys.path``.
        package: The name of the distribution.
        points: The entry points of each group, without ``reviewgen.`` in front, by name.
        modules: The source text of each module.
        version: The version of the distribution.
    """
    info = site / f"{package.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    lines = [
        f"[reviewgen.{group}]\n" + "".join(f"{n} = {v}\n" for n, v in entries.items())
        for group, entries in points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for name, code in (modules or {}).items():
        (site / f"{name}.py").parent.mkdir(exist_ok=True)
        (site / f"{name}.py").write_text(code)
    return site
