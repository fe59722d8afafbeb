"""``twinkle hub trust`` and ``twinkle hub revoke``: the user's own decisions about code from hubs, in ``$TWINKLE_HOME/trust.toml``.

``trust`` of a reference fetches its files to learn their digest, and executes nothing of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinkle.errors import PolicyError

if TYPE_CHECKING:
    from twinkle_registry.trust_store import TrustStore

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def trust(
    reference: Annotated[str | None, typer.Argument(help="A reference; the files that it stands for now are allowed.")] = None,
    owner: Annotated[str | None, typer.Option(help="Instead: everything of this owner, such as hf://acme.")] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of the owner's components that are allowed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Allow code from a hub: the files of REFERENCE as they are now, or all of an owner's components of one kind."""
    if (reference is None) == (owner is None):
        raise PolicyError("Give a reference, or --owner and --kind: twinkle hub trust hf://acme/focal@v1")
    store = _store()
    if owner is not None:
        if kind is None:
            raise PolicyError(f"Say which of its components: twinkle hub trust --owner {owner} --kind loss")
        from twinkle.kinds import get_kind

        get_kind(kind)
        store.allow_owner(owner, kind)
        _answer(as_json, {"owner": owner, "kind": kind}, f"Allowed: every {kind} of {owner}, those to come, too.")
        return
    if kind is not None:
        raise PolicyError("--kind goes with --owner; a reference is allowed by its files, whatever they are loaded as.")
    from twinkle.component import default_registry
    from twinkle_registry.trust import LoadRequest

    found = default_registry().inspect(str(reference))
    shown = f"{found.repository}@{found.commit}" if found.commit else found.repository
    store.allow_digest(found.digest, shown)
    decision = store.decide(LoadRequest("hub", shown, "any", repository=found.repository, digest=found.digest))
    if not decision.allowed:
        raise PolicyError(
            f"{reference} is still refused: {decision.why} was revoked ({decision.rule}). "
            f"Allow the owner again: twinkle hub trust --owner {found.owner} --kind KIND"
        )
    _answer(as_json, {"reference": reference, "digest": f"sha256:{found.digest}"}, f"Allowed: {shown}, sha256:{found.digest}.")


def revoke(
    what: Annotated[str, typer.Argument(help="A reference, a digest (sha256:…), or an owner (hf://acme).")],
    as_json: AsJson = False,
) -> None:
    """Take back what was allowed, and refuse it from now on. The opposite of trust, which lifts it again."""
    taken = _store().revoke(what)
    shown = "".join(f"\nNo longer allowed: {row}." for row in taken)
    _answer(as_json, {"revoked": what, "no_longer_allowed": taken}, f"Refused from now on: {what}.{shown}")


def _store() -> TrustStore:
    from twinkle_hub.settings import Settings
    from twinkle_registry.trust_store import TrustStore

    return TrustStore(Settings.from_environment().home)


def _answer(as_json: bool, data: dict[str, Any], text: str) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False) if as_json else text)
