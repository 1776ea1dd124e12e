"""Commands to hand bundles over: pack, sign, verify."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from pocketzoo.cli.echo import echo
from pocketzoo.cli.graph_options import graph_options
from pocketzoo.cli.options import force_option, json_option, model_argument, names, out_option, resolver
from pocketzoo.cli.render import Bars, print_json


@click.command()
@model_argument
@graph_options("model")
@click.option(
    "--target", default="cpu", show_default=True, shell_complete=names("target"), help="Target of the graph to copy."
)
@out_option(required=True, text="Folder to write.")
@force_option
@json_option
def pack(model: str, target: str, out: Path, force: bool, as_json: bool) -> None:
    """Copy what a device needs of MODEL: one graph, labels, tokenizer.

    The copy is a bundle for predict, bench and verify, without weights to train.
    """
    from pocketzoo.deploy.device.pack import pack

    bundle = pack(model, out, target=target, force=force, registry=resolver(), progress=Bars())
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    if as_json:
        print_json({"bundle": str(out), "bytes": size})
    else:
        echo(f"wrote {out} ({size:,} bytes)")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Private key (elliptic curve, PEM).")
@click.option(
    "--password", envvar="POCKETZOO_KEY_PASSWORD", help="Password of the key [default: $POCKETZOO_KEY_PASSWORD]."
)
@out_option(required=False, text="Signature file [default: model.sig in the bundle].")
def sign(bundle: Path, key: Path, password: str | None, out: Path | None) -> None:
    """Sign BUNDLE with a private key.

    Works offline. Create a key pair with openssl ecparam; see docs/deploy.md.
    """
    from pocketzoo.zoo.bundles.signing import sign

    echo(f"wrote {sign(bundle, key=key, password=password, out=out, progress=Bars())}")


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@graph_options("bundle")
@click.option("--key", type=click.Path(path_type=Path), help="Public key (PEM) of the expected signer.")
@click.option("--signature", type=click.Path(path_type=Path), help="Signature file [default: model.sig in the bundle].")
@click.option("--not-before", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"]),
              metavar="DATE", help="Refuse what was signed earlier (UTC).")  # fmt: skip
def verify(bundle: Path, key: Path | None, signature: Path | None, not_before: datetime | None) -> None:
    """Verify every file of BUNDLE, who signed it, and when.

    Without --key, only the digests in the manifest are checked. An older bundle of the same signer verifies too:
    --not-before refuses it.
    """
    if key is None and (signature is not None or not_before is not None):
        raise click.UsageError(f"{'--signature' if signature is not None else '--not-before'} needs --key PUBLIC_KEY")
    if key is not None:
        from pocketzoo.zoo.bundles.signing import shown, verified

        checked = verified(bundle, key=key, signature=signature, not_before=not_before)
        manifest = checked.bundle.manifest
        when = "without a date" if checked.at is None else f"on {shown(checked.at)}"
        signed = f", signed by the owner of {key} {when}"
    else:
        from pocketzoo.zoo.bundles.bundle import read_bundle
        from pocketzoo.zoo.bundles.signing import signed_at

        opened = read_bundle(bundle)
        manifest = opened.manifest
        said = signed_at(opened)
        signed = f"; it says it was signed on {said}, which --key verifies" if said else ""
    size = sum(entry.size for entry in manifest.files.values())
    from pocketzoo.core.files import home

    # A file is opened below home(): whoever gave it knows its name.
    called = manifest.provenance.get("source", bundle) if bundle.is_relative_to(home() / "models") else bundle
    echo(f"{called} is intact: {len(manifest.files)} files, {size:,} bytes{signed}")
    if key is not None:
        model = f"{manifest.name}, made {manifest.created or 'at an unknown time'} by pocketzoo {manifest.pocketzoo}"
        echo(f"signed: {model}; {', '.join(checked.files)}")
