"""The command ``reviewgen``, also as ``python -m reviewgen``. Handles interrupts before anything else is imported."""

from reviewgen.interrupts import INTERRUPTED, caught, ignore

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    try:
        with caught():
            from reviewgen.cli import main as run  # typer, rich and the registry of plugins

            run()
    except KeyboardInterrupt:  # between two imports, or at the very end
        raise SystemExit(INTERRUPTED) from None
    finally:
        ignore()  # nor is the end of the process cut off


if __name__ == "__main__":
    main()
