"""Record the terminal of the front page, ``docs/pictures/terminal.svg``, from a real run; needs
``reviewgen[reviews]``.

python docs/mkdocs/record.py
"""

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 104
COMMANDS = (
    "reviewgen train ngram-word --data reviews --out my-model",
    (
        "reviewgen generate lstm-word -n 3 --prompt 'This film ' --finish sentence --max-new-tokens"
        " 60 --seed 2"
    ),
)


def main() -> None:
    """Run the commands and write the picture."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            console.print(Text.assemble(("$ ", "green"), (command, "bold")))
            console.print(Text(run(command, folder)))
    svg = console.export_svg(title="reviewgen")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # no request to another server
    target = Path(__file__).parents[1] / "pictures" / "terminal.svg"
    target.write_text(svg, encoding="utf-8")


def run(command: str, folder: str) -> str:
    """Return what a command prints, in the order in which it does."""
    words = f"{sys.executable} -m {command}"
    done = subprocess.run(
        words,
        shell=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": str(WIDTH)},
    )
    return done.stdout


if __name__ == "__main__":
    main()
