"""Fuzzers: saved folders, token stores, unfinished work, kills, command lines, calls, the Hub, HTTP. Each case has a seed.

frame.py          what a fuzzer is, and what came of a case
__main__.py       the long run, with a summary
driver.py         runs a fuzzer in a process of its own and watches it
child.py          that process
planted.py        fuzzers with planted faults, for test_driver.py
folders.py        damaged and edited saved folders; mutations.py damages files
stores.py         damaged and forged token stores
working.py        damaged working folders, and manifests of tables
kills.py          processes that are killed while they write
hub.py            a hostile Hub; hub_attacks.py, hub_server.py and hub_child.py are parts of it
command_lines.py  commands with odd options, files and streams; command_bases.py and odd_files.py have what they begin with
calls.py          calls of public functions, which functions.py lists, with odd arguments; values.py has them
requests.py       hostile clients of the server; request_cases.py has what they send
"""
