"""`jmt-edge keygen`: a key to sign bundles and recordings with."""

from __future__ import annotations

from pathlib import Path

import click

from ._command import subcommand


@subcommand(
    "keygen",
    examples=[
        ("jmt-edge keygen ward.key", "ward.key is secret, ward.key.pub is for those who check"),
    ],
)
@click.argument("path", type=click.Path(path_type=Path), metavar="KEY")
def command(path: Path) -> None:
    """Make an Ed25519 key: the private key in KEY, for its owner's eyes only, and the public key in KEY.pub.

    Copy KEY.pub into ~/.config/jmt-edge/trusted ($JMT_EDGE_TRUST) on each machine that shall trust you.
    """
    from ..signing import keygen, trust_store

    public, id = keygen(path)
    click.echo(f"{path} (secret) and {public}, key {id[:16]}; to trust it, copy {public} into {trust_store()}")
