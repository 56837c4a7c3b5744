"""``make audit``, ``make wheel`` and ``make test-oldest``: what reviewgen depends on, with which
licences and vulnerabilities.
"""
