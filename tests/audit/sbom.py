"""The dependencies of the wheel as a CycloneDX SBOM: ``python -m tests.audit.sbom FILE``, before
the wheel is built.

It lists the versions that are installed here, those of the base install as required and those of
the extras as optional.
"""

import datetime
import os
import sys
import uuid
from importlib.metadata import Distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.audit.licences import EXCEPTIONS, is_accepted, licence
from tests.audit.walk import walk

__all__ = ["EXTRAS", "bom"]

EXTRAS = ("ftfy", "graph", "log", "onnx", "plot", "ray", "reviews", "serve", "tune")
"""What a user may install; the other extras are for those who change reviewgen."""


def bom(name: str) -> Bom:
    """Describe an installed distribution and what it depends on.

    Raises:
        ModuleNotFoundError: A dependency of the base install is missing.
    """
    base = walk(name)
    every = walk(name, frozenset(EXTRAS))
    if base.missing:
        raise ModuleNotFoundError(
            f"{', '.join(sorted(base.missing))} not installed; run `make wheel`, which installs it"
            " first."
        )
    components = {key: _component(dist, key in base.found) for key, dist in every.found.items()}
    result = Bom()
    result.metadata.component = components[name]
    result.metadata.component.scope = None
    result.metadata.timestamp = datetime.datetime.fromtimestamp(
        int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.UTC
    )
    result.components.update(part for key, part in components.items() if key != name)
    for key, needed in every.links.items():
        result.register_dependency(
            components[key], [components[one] for one in needed if one in components]
        )
    result.serial_number = uuid.uuid5(
        uuid.NAMESPACE_URL, " ".join(sorted(str(part.purl) for part in components.values()))
    )
    return result


def _component(dist: Distribution, required: bool) -> Component:
    """A distribution as a component; a local version such as that of PyTorch's builds for the CPU
    is not part of the name.
    """
    version = Version(dist.version).public
    purl = PackageURL("pypi", name=canonicalize_name(dist.name), version=version)
    stated = EXCEPTIONS[dist.name][0] if dist.name in EXCEPTIONS else licence(dist)
    licences = (
        [LicenseFactory().make_from_string(stated)]
        if is_accepted(stated) or dist.name in EXCEPTIONS
        else []
    )
    scope = ComponentScope.REQUIRED if required else ComponentScope.OPTIONAL
    return Component(
        type=ComponentType.LIBRARY,
        name=dist.name,
        version=version,
        purl=purl,
        bom_ref=str(purl),
        licenses=licences,
        scope=scope,
    )


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(JsonV1Dot6(bom("reviewgen")).output_as_string(indent=2), encoding="utf-8")
    print(f"{file}: {len(bom('reviewgen').components)} dependencies")
