"""Fuzzers: saved folders, command lines, calls, the Hub's protocol, HTTP requests and killed processes. Each case has a seed.

frame.py           what a fuzzer is, and what came of a case
requests.py        hostile clients of the server; request_cases.py has what they send
"""
