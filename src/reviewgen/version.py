"""The versions of the library and of the contract with its plugins. Imports nothing, so that every
room may import it.
"""

__version__ = "0.2.0"
# major.minor of ``reviewgen.protocols``; docs/explanation/plugin-contract.md says how it changes
API_VERSION = "1.0"
