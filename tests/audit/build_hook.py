"""Puts the SBOM that ``make wheel`` writes into the wheel (PEP 770). Other builds do without."""

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SbomHook(BuildHookInterface):  # type: ignore[type-arg]  # the type of its config is not part of hatchling's documentation
    """Adds the file that $REVIEWGEN_SBOM names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add it before the build."""
        if file := os.environ.get("REVIEWGEN_SBOM"):
            build_data["sbom_files"].append(file)
