"""``twinkle policy``: check an operator's policy, say how it decides, and keep its list of revoked digests.

``check`` and ``explain`` download nothing unless told to, and no command here executes anything of a repository.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from twinkle.errors import PolicyError
from twinkle.kinds import KINDS, get_kind

if TYPE_CHECKING:
    from twinkle_registry.policies import Policies
    from twinkle_registry.policy import Policy, RuleReport
    from twinkle_registry.registry import Registry
    from twinkle_registry.trust import LoadRequest

app = typer.Typer(help="Check and explain the policy on code from hubs.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PolicyOption = Annotated[
    Path | None,
    typer.Option("--policy", help="The policy file (default: what TWINKLE_POLICY names, or /etc/twinkle/policy.toml)."),
]
UNKNOWN_KIND = "unknown"


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="A policy file.")],
    as_json: AsJson = False,
) -> None:
    """Check a policy file. Exits with status 1 where it isn't valid; every error names file, line and key."""
    from twinkle_registry.policy import load_policy

    try:
        policy = load_policy(file)
    except PolicyError as error:
        if not as_json:
            raise
        _print_json({"file": str(file), "valid": False, "errors": str(error).splitlines()})
        raise typer.Exit(1) from None
    warnings = _warnings(policy)
    if as_json:
        shown = {"file": str(file), "valid": True, "default": policy.default, "allow": len(policy.allow), "deny": len(policy.deny)}
        _print_json({**shown, "revocations": policy.revocations and policy.revocations.source, "warnings": warnings})
        return
    typer.echo(f"{file} is valid: {len(policy.allow)} allow, {len(policy.deny)} deny; where no rule speaks: {policy.default}.")
    typer.echo(f"Revoked digests: {policy.revocations.source if policy.revocations else 'no list'}.")
    for warning in warnings:
        typer.echo(f"Warning: {warning}")


def _warnings(policy: Policy) -> list[str]:
    """What is valid and yet hardly meant."""
    found = []
    for effect, rules in (("deny", policy.deny), ("allow", policy.allow)):
        for place, rule in enumerate(rules):
            for kind in rule.kind or ():
                if kind not in KINDS:
                    near = difflib.get_close_matches(kind, KINDS, 1)
                    hint = f" Did you mean {near[0]!r}?" if near else ""
                    found.append(f"{policy.rule_name(effect, place)}.kind: {kind!r} is no kind that Twinkle knows.{hint}")
    denied = {digest for rule in policy.deny if not (rule.owner or rule.kind or rule.capability) for digest in rule.digest or ()}
    for place, rule in enumerate(policy.allow):
        found += [
            f"{policy.rule_name('allow', place)}.digest: {digest} is denied, too, and a denial wins."
            for digest in rule.digest or ()
            if digest in denied
        ]
    return found


@app.command("explain")
def explain(
    reference: Annotated[str, typer.Argument(help="A reference, such as hf://acme/focal@v1, or a project's alias for one.")],
    kind: Annotated[str | None, typer.Option(help="The kind of component that it would be loaded as.")] = None,
    policy: PolicyOption = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download the files (and execute nothing), so that rules about what is in them can fit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether code from a hub may be loaded, which rule decides, and why."""
    from twinkle.component import default_registry
    from twinkle_hub.settings import Settings
    from twinkle_registry.policies import Policies
    from twinkle_registry.trust import environment_allows

    if kind is not None:
        get_kind(kind)
    registry = default_registry()
    request = _request(registry, reference, kind)
    if request.source == "installed":
        _show_installed(request, as_json)
        return
    if fetch:
        request = _with_contents(registry, request)
    policies = Policies.current(Settings.from_environment().home, policy and policy.absolute())
    pinned, locked = _locked(registry, request)
    steps = policies.explain(pinned, locked=locked, environment=environment_allows())
    decided = next((step for step in steps if step.allowed is not None), None)
    depends = _may_be_allowed(policies, pinned)
    if depends and decided is not None and decided.asked == "default":
        decided = None
    rules = [*policies.user.rules().explain(pinned), *(policies.operator.explain(pinned) if policies.operator else ())]
    shown: dict[str, Any] = {
        "reference": reference,
        "repository": pinned.repository,
        "kind": kind,
        "digest": pinned.digest,
        "allowed": decided.allowed if decided else None,
        "decided_by": decided._asdict() if decided else None,
        "may_be_allowed": depends,
        "steps": [step._asdict() for step in steps],
        "rules": [rule._asdict() for rule in rules],
    }
    if as_json:
        _print_json(shown)
    else:
        _show(shown, rules)


def _may_be_allowed(policies: Policies, request: LoadRequest) -> bool:
    """Whether a rule may fit once what arrives is known."""
    refused = policies.operator_decision(request).allowed is False or policies.user.decide(request).allowed is False
    return request.digest is None and not refused and policies.may_allow(request)


def _request(registry: Registry, reference: str, kind: str | None) -> LoadRequest:
    """The request that loading ``reference`` would make, as far as it is known without asking a hub."""
    from twinkle.cli.trace import kinds_of
    from twinkle_registry.trust import LoadRequest

    if kind is None and "://" not in registry.project.alias.get(reference, reference):
        kind = kinds_of(reference)[0]  # of what is installed it is known
    resolved = registry.find(kind or UNKNOWN_KIND, reference)
    if resolved.hub is None:
        label = resolved.component.label if resolved.component else None
        return LoadRequest("installed", reference, kind or UNKNOWN_KIND, distribution=label)
    hub = resolved.hub
    repository = f"{hub.scheme}://{hub.repository}"
    return LoadRequest("hub", reference, kind or UNKNOWN_KIND, repository=repository, revision=hub.revision, digest=hub.digest)


def _with_contents(registry: Registry, request: LoadRequest) -> LoadRequest:
    """``request`` with what an inspection of the files adds."""
    found = registry.inspect(request.reference)
    return replace(
        request,
        digest=found.digest,
        commit=found.commit,
        needs=tuple(found.needs),
        pure=found.pure,
        capabilities=found.capabilities,
    )


def _locked(registry: Registry, request: LoadRequest) -> tuple[LoadRequest, bool]:
    """``request``, with the digest that the lock has for it where it has none itself; and whether the lock pins that digest."""
    from twinkle_registry.lock import find_lock

    lock = find_lock(registry.project)
    if request.digest is None:
        revision = f"@{request.revision}" if request.revision else ""
        entry = lock.component(f"{request.repository}{revision}")
        return (replace(request, digest=entry.digest), True) if entry else (request, False)
    return request, lock.by_digest(request.digest) is not None


def _show_installed(request: LoadRequest, as_json: bool) -> None:
    why = f"it is installed ({request.distribution}); whoever installs can run code already"
    if as_json:
        step = {"asked": "installed", "allowed": True, "rule": "", "why": why}
        _print_json({"reference": request.reference, "allowed": True, "decided_by": step, "steps": [step], "rules": []})
    else:
        typer.echo(f"{request.reference}: allowed, because {why}.")


def _show(shown: dict[str, Any], rules: list[RuleReport]) -> None:
    decided = shown["decided_by"]
    if decided is None and shown["may_be_allowed"]:
        typer.echo(f"{shown['reference']}: that depends on what is in it. Look, without executing it: add --fetch")
    elif decided is None:
        typer.echo(f"{shown['reference']}: nobody decided yet; a terminal is asked, a script gets an error.")
    else:
        verdict = "allowed" if decided["allowed"] else "denied"
        place = f" ({decided['rule']})" if decided["rule"] else ""
        typer.echo(f"{shown['reference']}: {verdict} by {decided['asked']}{place}: {decided['why']}")
    typer.echo("Asked in this order:")
    for step in shown["steps"]:
        word = {True: "allows", False: "denies", None: "-"}[step["allowed"]]
        typer.echo(f"  {step['asked']:<12} {word:<7} {step['why']}")
    if rules:
        typer.echo("Rules:")
    for rule in rules:
        typer.echo(f"  {rule.rule}: {'fits' if rule.mismatch is None else rule.mismatch}: {rule.why}")
    if shown["kind"] is None and any(" kind " in f" {rule.why}" for rule in rules):
        typer.echo("There are rules about kinds: say which kind it would be loaded as, with --kind.")


@app.command("refresh")
def refresh(policy: PolicyOption = None, as_json: AsJson = False) -> None:
    """Fetch the policy's list of revoked digests and check its signature; whatever goes wrong, the last good copy stays."""
    from twinkle.component import default_registry
    from twinkle_hub.settings import Settings
    from twinkle_registry.policies import policy_file
    from twinkle_registry.policy import load_policy
    from twinkle_registry.revocations import Revocations

    file = policy.absolute() if policy else policy_file()
    if file is None:
        raise PolicyError("There is no policy: set TWINKLE_POLICY, write /etc/twinkle/policy.toml, or give --policy FILE.")
    table = load_policy(file).revocations
    if table is None:
        raise PolicyError(f"{file} has no [revocations]: add source and public_key, or there is nothing to fetch.")
    settings = Settings.from_environment()
    source = table.source if "://" in table.source else os.path.normpath(file.parent / Path(table.source).expanduser())
    found = Revocations.refresh(
        source, table.public_key, home=settings.home, hubs=default_registry().hubs, offline=settings.offline
    )
    if as_json:
        _print_json({"source": source, "serial": found.serial, "revoked": len(found.reasons)})
    else:
        typer.echo(f"{source}: serial {found.serial}, {len(found.reasons)} revoked digests; the signature is right.")


@app.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(help="A revocations.toml.")],
    key: Annotated[Path, typer.Option(help="The private key: PEM, from openssl genpkey -algorithm ed25519.")],
    as_json: AsJson = False,
) -> None:
    """Sign a list of revoked digests, and show the public key for policies. For whoever issues one."""
    from twinkle_registry._toml_model import read_file
    from twinkle_registry.revocations import public_key_of, sign_revocations

    private_key = read_file(key)
    signature = sign_revocations(file, private_key)
    public_key = public_key_of(private_key)
    if as_json:
        _print_json({"signature": str(signature), "public_key": public_key})
    else:
        typer.echo(f'{signature} is written. Publish it beside {file.name}. In policies: public_key = "{public_key}"')


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
