"""Commands for models of the Hub: search, pull, lock, update, outdated, store, push."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.options import Whole, json_option
from pocketzoo.cli.render import Bars, print_columns, print_json
from pocketzoo.core.errors import HubIntegrityError, UnknownNameError

lock_option = click.option(
    "--lock", "lock_file", type=click.Path(path_type=Path), default="zoo.lock", show_default=True, help="Lock file."
)


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--task", metavar="T", help="Only models for this task, such as feature-extraction.")
@click.option("--library", type=click.Choice(["timm", "transformers"]), help="Only models of this library.")
@click.option("--max-params", type=Whole(1, 2**63 - 1), metavar="N", help="Only models with at most N parameters.")
@click.option("--limit", type=Whole(1), default=20, show_default=True, help="Maximum number of results.")
@json_option
def search(
    words: tuple[str, ...], task: str | None, library: str | None, max_params: int | None, limit: int, as_json: bool
) -> None:
    """Search the Hub for models that can be loaded here.

    Models that no plugin loads are listed with the reason.
    """
    from pocketzoo.zoo.models.search import search

    models = search(" ".join(words), task=task, library=library, max_params=max_params, limit=limit)
    if as_json:
        print_json(models)
        return
    rows = [
        [
            f"hf://{f.repo_id}",
            f"{f.parameters / 1e6:,.1f} M" if f.parameters else "",
            f.task,
            f.loader or f"no: {f.reason}",
        ]
        for f in models
    ]
    print_columns(rows)
    if not rows:
        echo("no results; try fewer words", err=True)


@click.command()
@click.argument("refs", metavar="REF...", nargs=-1)
@click.option("--locked", is_flag=True, help="Pull exactly what is locked; without REF, everything.")
@lock_option
@json_option
def pull(refs: tuple[str, ...], locked: bool, lock_file: Path, as_json: bool) -> None:
    """Download models from the Hub and verify every byte.

    REF is hf://org/name[@revision].
    """
    if not refs and not locked:
        raise click.UsageError("Missing argument 'REF...' (or give --locked).")
    from pocketzoo.zoo.models.pull import pull

    models = pull(refs, locked=locked, lock=lock_file, progress=Bars())
    if as_json:
        print_json(models)
    else:
        print_columns(
            [[_name(p.ref), p.commit[:12], _megabytes(sum(f.size for f in p.files)), p.loader] for p in models]
        )


@click.command()
@click.argument("refs", metavar="REF...", nargs=-1, required=True)
@lock_option
def lock(refs: tuple[str, ...], lock_file: Path) -> None:
    """Pin models in zoo.lock: commit and sha256 of every file.

    References already locked keep their commit; "update" moves them.
    """
    from pocketzoo.zoo.models.pull import lock

    models = lock(refs, lock=lock_file, progress=Bars())
    print_columns([[_name(p.ref), p.commit[:12]] for p in models])
    echo(f"wrote {lock_file}")


@click.command()
@click.argument("refs", metavar="REF...", nargs=-1)
@lock_option
def update(refs: tuple[str, ...], lock_file: Path) -> None:
    """Move locked models to the latest commit of their branch.

    Without REF, all of them.
    """
    from pocketzoo.zoo.hub.lock_file import read_lock
    from pocketzoo.zoo.models.pull import update

    before = read_lock(lock_file)
    models = update(refs, lock=lock_file, progress=Bars())
    for p in models:
        old = before[p.ref].commit[:12] if p.ref in before else "new"
        echo(f"{_name(p.ref)}  {old if old == p.commit[:12] else f'{old} -> {p.commit[:12]}'}")


@click.command()
@lock_option
@json_option
def outdated(lock_file: Path, as_json: bool) -> None:
    """List locked models whose branch has moved."""
    from pocketzoo.zoo.models.pull import outdated

    moved = outdated(lock=lock_file, progress=Bars())
    if as_json:
        print_json([{"ref": ref, "locked": old, "now": new} for ref, old, new in moved])
    elif moved:
        print_columns([[ref, old[:12], f"-> {new[:12]}"] for ref, old, new in moved])
    else:
        echo("everything is up to date")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("repository", metavar="ORG/NAME")
@click.option("--head-only", is_flag=True, help="Upload only the head's weights; the backbone is pulled by its pin.")
@click.option("--private", is_flag=True, help="Create the repository as private.")
@click.option("--license", default="", metavar="ID", help="License, where that of the backbone is unknown.")
def push(bundle: Path, repository: str, head_only: bool, private: bool, license: str) -> None:
    """Upload BUNDLE to the Hub, with its model card.

    Needs a token in HF_TOKEN. Engines are never uploaded.
    """
    from pocketzoo.zoo.models.push import push

    echo(push(bundle, repository, head_only=head_only, private=private, license=license, progress=Bars()))


@click.group()
def store() -> None:
    """Manage downloaded files."""


@store.command("ls")
@json_option
def store_ls(as_json: bool) -> None:
    """List stored models, and those that were prepared here."""
    from pocketzoo.zoo.bundles.prepared import prepared_models
    from pocketzoo.zoo.hub.store import Store

    pins = Store().pins()
    if as_json:
        print_json(pins)
    else:
        print_columns(
            [
                [f"hf://{p.repo_id}@{p.commit[:12]}", f"{len(p.files)} files", _megabytes(sum(f.size for f in p.files))]
                for p in pins
            ]
            + [[name, "prepared", _megabytes(size)] for name, size in prepared_models()]
        )


@store.command("du")
@json_option
def store_du(as_json: bool) -> None:
    """Show disk usage of the store; shared files count once."""
    from pocketzoo.zoo.hub.store import Store

    here = Store()
    if as_json:
        print_json({"folder": str(here.root), "bytes": here.used()})
    else:
        echo(f"{_megabytes(here.used())} in {here.root}")


@store.command("verify")
def store_verify() -> None:
    """Verify the digest of every stored file."""
    from pocketzoo.zoo.hub.store import Store

    here = Store()
    for problem in (problems := here.verify()):
        echo(f"{problem.path}: {problem.what}")
    if problems:
        raise HubIntegrityError(
            f"{len(problems)} files of the store are damaged",
            "remove them with: pocketzoo store prune; then pull again",
        )
    echo(f"{here.root} is intact: {len(here.pins())} models, {_megabytes(here.used())}")


@store.command("prune")
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="LOCK", help="Remove models that are not in this lock file, too."
)
def store_prune(keep: Path | None) -> None:
    """Remove damaged, temporary and unreferenced files, and what nobody used for a month."""
    from pocketzoo.zoo.bundles.prepared import prune
    from pocketzoo.zoo.hub.lock_file import read_lock
    from pocketzoo.zoo.hub.reference import HubRef, parse

    commits = None
    if keep is not None:
        refs = [(parse(ref), entry.commit) for ref, entry in read_lock(keep).items()]
        commits = [(ref.repo_id, commit) for ref, commit in refs if isinstance(ref, HubRef)]
    echo(f"freed {_megabytes(prune(commits))}")


@store.command("rm")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
def store_rm(models: tuple[str, ...]) -> None:
    """Remove models from this disk, with what was prepared of them.

    MODEL is hf://org/name, with @COMMIT that commit alone, or the name of a prepared model.
    """
    from pocketzoo.zoo.bundles.prepared import remove
    from pocketzoo.zoo.hub.reference import HubRef, parse

    refs = [(name, parse(name)) for name in models]  # before anything is removed
    for name, ref in refs:
        if not (freed := remove(ref if isinstance(ref, HubRef) else name)):
            raise UnknownNameError(f"{name} is not stored here", "see pocketzoo store ls")
        echo(f"removed {name}: {_megabytes(freed)}")


def _name(ref: str) -> str:
    """A reference without its commit, which has a column of its own."""
    from pocketzoo.zoo.hub.reference import HubRef, parse

    parsed = parse(ref)
    return str(replace(parsed, revision="main")) if isinstance(parsed, HubRef) and parsed.pinned else ref


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size / 1e3:,.1f} kB"
