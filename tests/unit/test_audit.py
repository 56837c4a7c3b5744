"""What ``make audit``, ``make wheel`` and ``make test-oldest`` say about the dependencies."""

import json
import os
import subprocess
import sys
import zipfile
from email.message import Message
from importlib.metadata import distribution, requires, version
from pathlib import Path

import pytest
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.audit import bounds, licences, sbom, vulnerabilities
from tests.audit.walk import walk

ROOT = Path(__file__).parents[2]


class Metadata:
    """A distribution as the audit sees it."""

    def __init__(self, *headers):
        self.metadata = Message()
        for key, value in headers:
            self.metadata[key] = value


@pytest.mark.parametrize(
    ("expression", "accepted"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("LGPL-3.0-only", False),
        ("LicenseRef-Proprietary", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_which_licences_are_accepted(expression, accepted):
    assert licences.is_accepted(expression) is accepted


@pytest.mark.parametrize(
    ("headers", "licence"),
    [
        ([("License-Expression", "ISC"), ("License", "GPL")], "ISC"),
        ([("License", "Apache License, Version 2.0")], "Apache-2.0"),
        ([("License", "MIT License\n\nPermission is hereby granted")], "MIT"),
        ([("License", "MPL-2.0 AND MIT"), ("Classifier", "License :: OSI Approved :: MIT License")], "MPL-2.0 AND MIT"),
        ([("License", "UNKNOWN"), ("Classifier", "License :: OSI Approved :: BSD License")], "BSD-3-Clause"),
        (
            [
                ("Classifier", f"License :: OSI Approved :: {name}")
                for name in ("MIT License", "GNU General Public License (GPL)")
            ],
            "GNU General Public License (GPL) AND MIT",
        ),
        ([], "unknown"),
    ],
)
def test_where_the_licence_of_a_distribution_stands(headers, licence):
    assert licences.licence(Metadata(*headers)) == licence


def test_a_licence_is_read_wherever_metadata_have_one():
    assert not licences.is_accepted(licences.licence(Metadata(("License", "GPLv2"))))
    assert not licences.is_accepted(licences.licence(Metadata(("Classifier", "License :: OSI Approved :: GNU Affero GPL v3"))))


def test_all_dependencies_installed_here_have_accepted_licences():
    tree = walk("reviewgen", frozenset(["dev"]))
    wrong = {name: licences.licence(dist) for name, dist in tree.found.items() if not licences.why_excepted(name)}
    assert {name: licence for name, licence in wrong.items() if not licences.is_accepted(licence)} == {}
    assert {"torch", "sympy", "mpmath"} <= set(tree.found)  # a dependency, one of its dependencies, and one of that one's


def test_vulnerabilities_are_read_and_silence_is_not_taken_for_safety():
    report = {
        "dependencies": [
            {
                "name": "a",
                "version": "1.0",
                "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}],
            },
            {"name": "b", "version": "2.0", "vulns": []},
            {"name": "c", "skip_reason": "not found"},
        ]
    }
    answer = vulnerabilities.read(json.dumps(report))
    assert answer.known == ["a 1.0: CVE-1, mended in 1.1"]
    assert answer.unanswered == ["c: not found"]


@pytest.mark.parametrize(
    ("printed", "errors"),
    [('{"dependencies": [{"name": "torch", "skip_reason": "not on this index"}]}', ""), ("", "ERROR: no route to host")],
)
def test_a_service_that_does_not_answer_is_an_error(monkeypatch, printed, errors):
    done = subprocess.CompletedProcess([], 0, printed, errors)
    monkeypatch.setattr(vulnerabilities.subprocess, "run", lambda *words, **options: done)
    with pytest.raises(ConnectionError, match=r"not on this index|no route to host"):
        vulnerabilities.ask([distribution("torch")])


def test_a_dependency_above_its_bound_is_found(monkeypatch):
    installed = Version(version("numpy"))
    monkeypatch.setattr(bounds, "requires", lambda name: [f"numpy>={installed.major}.{installed.minor}", "torch>=1.0", "rich"])
    torch, rich = bounds.above("reviewgen", frozenset())
    assert torch.startswith("torch>=1.0: ")
    assert rich.startswith("rich: ")


def test_every_range_has_a_lower_bound():
    ranges = [Requirement(text) for text in requires("reviewgen")]
    assert [str(one) for one in ranges if one.name != "reviewgen" and bounds.bound(one) is None] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel with its SBOM, as ``make wheel`` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    file = folder / "reviewgen.cdx.json"
    file.write_text(JsonV1Dot6(sbom.bom("reviewgen")).output_as_string(indent=2), encoding="utf-8")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    environment = {**os.environ, "REVIEWGEN_SBOM": os.path.relpath(file, ROOT)}
    subprocess.run(words, cwd=ROOT, env=environment, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as built:
        yield built


def test_the_wheel_holds_a_valid_sbom_that_lists_its_dependencies(wheel):
    name = f"reviewgen-{version('reviewgen')}.dist-info/sboms/reviewgen.cdx.json"
    text = wheel.read(name).decode("utf-8")
    assert name in wheel.read(name.replace("sboms/reviewgen.cdx.json", "RECORD")).decode("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    content = json.loads(text)
    scopes = {canonicalize_name(one["name"]): one["scope"] for one in content["components"]}
    ranges = [Requirement(text) for text in requires("reviewgen")]
    assert {scopes[canonicalize_name(one.name)] for one in ranges if one.marker is None} == {"required"}
    assert scopes["mpmath"] == "required"  # torch -> sympy -> mpmath
    assert scopes["matplotlib"] == "optional"
    links = {one["ref"]: one.get("dependsOn", []) for one in content["dependencies"]}
    assert f"pkg:pypi/mpmath@{version('mpmath')}" in links[f"pkg:pypi/sympy@{version('sympy')}"]


def test_the_sbom_is_the_same_each_time():
    first, second = (JsonV1Dot6(sbom.bom("reviewgen")).output_as_string() for _ in range(2))
    assert first == second
