"""`jmt-edge verify`: is a bundle or a recording what was written, and who signed it?"""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import ConfigError
from ._command import subcommand


@subcommand(
    "verify",
    examples=[
        ("jmt-edge verify pain.jmt", "against the trust store"),
        ("jmt-edge verify session1 --unsigned", "hashes only"),
    ],
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--key", type=click.Path(path_type=Path), help="The signer's public key  [default: the trust store].", metavar="PUB"
)
@click.option("--unsigned", is_flag=True, help="Compare hashes only; anybody may have written them.")
def command(path: Path, key: Path | None, unsigned: bool) -> None:
    """Compare every file of the bundle or recording PATH with its hash and with its signature.

    Exit code 2, with the file's name, for anything that was changed, added, removed or linked, and for a folder that
    nobody in the trust store (~/.config/jmt-edge/trusted, $JMT_EDGE_TRUST) has signed.
    """
    from ._signed import check_folder, kind_of

    if unsigned and key is not None:
        raise ConfigError("--key checks a signature, but --unsigned checks none; leave one out")
    if unsigned:
        kind = check_folder(path)
        click.echo(f"{kind.noun} {path}: all files as they were written; who wrote them was not checked")
        return
    from ..signing import public_key, trusted_keys, verify

    keys = [public_key(key)] if key is not None else trusted_keys()
    table, by = verify(path, kind_of(path), keys)
    kind = check_folder(path)
    click.echo(f"{kind.noun} {path}: {len(table)} files as they were signed with the key {by.id[:16]} ({by.path})")
