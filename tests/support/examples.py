"""Installs a package of ``examples/`` as a user does: from a copy whose source is then deleted."""

import os
import shutil
from pathlib import Path

from tests.support.forked import run_python

EXAMPLES = Path(__file__).parents[2] / "examples"


def install_example(package: str, root: Path) -> Path:
    """Install a package into a folder below ``root``, and return that folder, for PYTHONPATH."""
    source, site = root / "source", root / "site"
    shutil.copytree(EXAMPLES / package, source)
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(source)]
    done = run_python(["-m", *pip], env=os.environ | {"PYTHONPATH": ""}, cwd=root)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(source)
    return site
