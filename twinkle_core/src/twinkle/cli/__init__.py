"""The command line: ``twinkle``.

``main`` answers ``--version`` itself, importing nothing: it is what scripts and shells ask most, and it has a budget. Everything
else is in ``twinkle.cli.app``.
"""

import sys


def main() -> None:
    """The console script."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from twinkle import __version__

        sys.stdout.write(f"twinkle {__version__}\n")
        return
    from twinkle.cli.app import run

    run()
