"""The command ``reviewgen``, also as ``python -m reviewgen``. Handles interrupts before anything
else is imported.

An interrupt that comes even earlier, while the interpreter starts or imports this file, is the
interpreter's. It ends the process as well, in most cases with a traceback.
"""

import os

_INTERRUPTED = 130  # ``interrupts.INTERRUPTED``, which may not be imported yet


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    try:
        # this import takes some milliseconds, in which an interrupt may already come
        from reviewgen.interrupts import ignore, raising_interrupts

        try:
            with raising_interrupts():
                from reviewgen.cli import main as run  # typer, rich and the registry of plugins

                run()
        finally:
            ignore()  # so that no further interrupt cuts off the end of the process
    except KeyboardInterrupt:  # it came while ``interrupts`` was imported, or before ``ignore``
        os.write(2, b"Interrupted.\n")
        raise SystemExit(_INTERRUPTED) from None


if __name__ == "__main__":
    main()
