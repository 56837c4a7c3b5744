"""Fuzzers: saved folders, command lines, calls, the Hub's protocol, HTTP requests and killed processes. Each case has a seed.

frame.py     what a fuzzer is, and what came of a case
__main__.py  the long run, with a summary
driver.py    runs a fuzzer in a process of its own and watches it
child.py     that process
planted.py   fuzzers with planted faults, for test_driver.py
"""
