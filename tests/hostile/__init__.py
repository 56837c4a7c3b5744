"""Fuzzers of what reviewgen defends: saved folders, kills, command lines, calls, the Hub, HTTP
(``docs/security.md``).

Each module of ``frame.FUZZERS`` is one. Each case is drawn from a seed, so that it can be repeated.
``make fuzz`` runs them for as long as you like, ``test_slice.py`` a few cases of each.
"""
