"""Fuzzers: saved folders, command lines, calls, the Hub's protocol, HTTP requests and killed processes. Each case has a seed.

frame.py     what a fuzzer is, and what came of a case
hub.py       the Hub's protocol, with hub_server.py (the server), hub_attacks.py (its attacks) and hub_child.py (the client)
"""
