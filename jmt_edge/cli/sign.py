"""`jmt-edge sign`: sign a bundle or a recording."""

from __future__ import annotations

from pathlib import Path

import click

from ._command import subcommand


@subcommand(
    "sign",
    examples=[
        ("jmt-edge sign pain.jmt --key ward.key", "a bundle or a recording"),
    ],
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="Private key, made by `jmt-edge keygen`.",
    metavar="KEY",
)
def command(path: Path, key: Path) -> None:
    """Sign the bundle or the recording PATH, after checking that it is what was written.

    The signature, PATH/signature.json, covers the name, size and sha256 of every file. A signature says who vouches for
    the files, not that they are right.
    """
    from ..signing import key_id, private_key, sign
    from ._signed import check_folder

    secret = private_key(key)
    kind = check_folder(path)
    table = sign(path, kind, secret)
    click.echo(f"signed {kind.noun} {path}: {len(table)} files, key {key_id(secret.public_key())[:16]}")
