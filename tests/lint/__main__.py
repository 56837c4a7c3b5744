"""``python -m tests.lint``: prints each offence, one in a line. Exit status 1 if there is one."""

import sys

from tests.lint.layers import check_layers, check_plugins, check_tests
from tests.lint.pages import check_help, check_names, check_pages
from tests.lint.sizes import check_sizes
from tests.lint.statements import check_statements

checks = (
    check_layers,
    check_plugins,
    check_tests,
    check_sizes,
    check_statements,
    check_names,
    check_pages,
    check_help,
)
offences = list[str]()
for check in checks:
    offences += check()
print("\n".join(offences) or "The structure is as it should be.")
sys.exit(bool(offences))
