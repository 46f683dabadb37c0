"""`jmt-edge push`: a bundle to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import ConfigError
from ._command import subcommand


@subcommand(
    "push",
    examples=[
        ("jmt-edge push pain.jmt OWNER/pain-jmt", "into a private repository"),
    ],
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="Make a new repository public; the default is private.")
@click.option("--revision", default="", help="A branch, made if it does not exist.  [default: main]", metavar="NAME")
def command(bundle: Path, repo: str, public: bool, revision: str) -> None:
    """Upload BUNDLE with its model card to the model repository OWNER/NAME.

    All files go up in one commit. The manifest lists the ids of the subjects, so look at it before you publish. The
    address is $HF_ENDPOINT, the token $HF_TOKEN or that of `hf auth login`.
    """
    from ..compiler.hub import push
    from ..engine.bundle import load_bundle

    loaded = load_bundle(bundle)
    if loaded.subject:
        raise ConfigError(
            f"{bundle} is personalised to {loaded.subject}, and such a bundle is not for others; push the general one "
            "(`jmt-edge personalise --undo`)"
        )
    split = loaded.manifest.get("provenance", {}).get("split", {})
    ids = len({*split.get("train_subjects", []), *split.get("test_subjects", [])})
    address = push(bundle, repo, public=public, revision=revision)
    click.echo(f"{bundle} is at {address}")
    if ids:
        click.echo(f"its manifest lists the ids of {ids} subjects")
