"""``make audit``, ``make wheel`` and ``make test-oldest``: what reviewgen depends on.

__main__.py         licences and known vulnerabilities of all dependencies
bounds.py           each dependency is installed at the lower bound of its range
licences.py         which licences are accepted, and what the metadata say
sbom.py             the dependencies as a CycloneDX SBOM, for the wheel
vulnerabilities.py  asks pip-audit
walk.py             the dependencies of the installed package, with theirs
"""
