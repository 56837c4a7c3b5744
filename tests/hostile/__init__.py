"""Fuzzers: saved folders, command lines, calls, the Hub's protocol, HTTP requests and killed processes. Each case has a seed.

frame.py          what a fuzzer is, and what came of a case
__main__.py       the long run, with a summary
driver.py         runs a fuzzer in a process of its own and watches it
child.py          that process
planted.py        fuzzers with planted faults, for test_driver.py
folders.py        damaged and edited saved folders
kills.py          processes that are killed while they write
hub.py            a hostile Hub; hub_attacks.py, hub_server.py and hub_child.py are parts of it
command_lines.py  commands with odd options, files and streams
calls.py          calls of public functions with odd arguments; values.py has them
requests.py       hostile clients of the server; request_cases.py has what they send
"""
