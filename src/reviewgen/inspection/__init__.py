"""Checks installed plugins without training them, each package in a process of its own.

A plugin may raise, exit, crash, hang, print or fork while it is imported; none of that reaches the process that checks it.

    static      the checks of one plugin: its import, its entry point's object, its config, the settings of a preset
    processes   runs them for all plugins, a few packages at once, with a time limit for each plugin
    child       what such a process does
"""

from reviewgen.inspection.processes import Inspection, inspect_plugins
from reviewgen.inspection.static import inspect_plugin

__all__ = ["Inspection", "inspect_plugin", "inspect_plugins"]
