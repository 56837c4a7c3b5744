"""``make files``: prints every file of the packages with the first line of its docstring, which
says what it is for.
"""

import ast
from pathlib import Path

for file in sorted(
    [*Path("src").rglob("*.py"), *Path("plugins").rglob("*.py")],
    key=lambda file: (file.parent, file),
):
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "(empty)"
    print(f"{file!s:48} {docstring.splitlines()[0]}")
