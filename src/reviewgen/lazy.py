"""Names of a package that are imported on first use (PEP 562): ``import reviewgen`` takes no time,
and a stepper, whose contract is in ``reviewgen.protocols``, does not load torch.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def import_on_first_use(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package.

    A type checker and an editor find the same names in the package's ``if TYPE_CHECKING`` block.

    Args:
        package: Its name.
        modules: The names that each of its modules defines, with spaces in between.
    """
    homes = dict[str, str]()
    for module, names in modules.items():
        homes |= dict.fromkeys(names.split(), module)

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
