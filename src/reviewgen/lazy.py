"""Imports the names of a package on first use (PEP 562).

So ``import reviewgen`` is fast. Code that needs only some names of a package imports only the
modules of these names: a stepper, for example, needs only its protocol from
``reviewgen.protocols``, and so does not import torch.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def import_on_first_use(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package, which imports a name when the name is first used.

    Type checkers and editors find the same names in the package's ``if TYPE_CHECKING`` block.

    Args:
        package: The name of the package.
        modules: For each module of the package, the names that the module defines, separated by
            spaces.
    """
    module_of = dict[str, str]()
    for module, names in modules.items():
        module_of |= dict.fromkeys(names.split(), module)

    def find(name: str) -> Any:
        """Import the module that defines a name, and return what the name stands for."""
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return find
