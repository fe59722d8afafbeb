"""What this plugin adds to Twinkle: the hub ``tiny://`` and the command ``twinkle quickstart``.

Light to import: what a hook needs is imported when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

    from twinkle_hub.hub import Hub


def twinkle_register_hub() -> Hub:
    """The hub of what this plugin holds."""
    from twinkle_hub.settings import Settings
    from twinkle_plugin_tiny.hub import TinyHub

    return TinyHub(Settings.from_environment().home)


def twinkle_add_cli(app: typer.Typer) -> None:
    """Add ``twinkle quickstart``."""
    from twinkle_plugin_tiny.command import quickstart

    app.command("quickstart")(quickstart)
