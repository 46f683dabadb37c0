"""`jmt-edge import`: a checkpoint of the published code becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from ..errors import ConfigError
from ._command import subcommand


@subcommand(
    "import",
    examples=[
        (
            "jmt-edge import fusion.pth --task pain --backbone face=face.pth --backbone eda=eda.pth --out pain.jmt",
            "a checkpoint of the published code with its backbones",
        ),
    ],
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--task", "task_name", type=click.Choice(["pain", "affect"]), required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Bundle to write, NAME.jmt.", metavar="PATH"
)
@click.option("--head", type=click.Choice(["self_attention", "concat"]), help="[default: what the file holds]")
@click.option(
    "--attention-heads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Not stored in the file.",
    metavar="N",
)
@click.option(
    "--joint", type=click.Choice(["plain", "abs"]),
    help="Input of the joint layer; abs is the released pain code's |[v; p]| [default: abs for pain with concat].",
)  # fmt: skip
@click.option(
    "--backbone", "backbones", multiple=True, metavar="MODALITY=FILE|torchvision",
    help="Weights of a backbone: a file (CHECKPOINT itself, if it holds them) or torchvision's own.",
)  # fmt: skip
@click.option("--eda-relu/--no-eda-relu", default=False, show_default=True, help="ReLU after the EDA network's FC.")
@click.option("--allow-untrained", is_flag=True, help="Write the bundle even if a backbone has no trained weights.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
def command(
    checkpoint: Path, task_name: str, out: Path, head: Literal["self_attention", "concat"] | None,
    attention_heads: int, joint: str | None, backbones: tuple[str, ...], eda_relu: bool,
    allow_untrained: bool, overwrite: bool,
) -> None:  # fmt: skip
    """Convert CHECKPOINT, a joint transformer trained with the papers' released code, into a bundle.

    Only tensors are read, never code. Every key used, ignored or missing is listed.
    """
    from dataclasses import replace

    import torch

    from ..compiler.export import export_bundle
    from ..engine.bundle import sha256_file
    from ..models import Backbone, JointModel, build_backbone, load_pretrained, read_checkpoint
    from ..models.released import import_released
    from ..tasks import as_released, get_task

    task = as_released(get_task(task_name))
    files = _backbone_files(backbones, task.names)
    untrained = [name for name in task.names if name not in files]
    if untrained and not allow_untrained:
        raise ConfigError(
            f"no weights for the {' and '.join(untrained)} backbone, so results would be meaningless; give "
            + " ".join(f"--backbone {name}=FILE" for name in untrained)
            + ", or --allow-untrained to write a bundle that is marked as untrained"
        )
    fusion, report = import_released(
        read_checkpoint(checkpoint), task, source=str(checkpoint), head=head, attention_heads=attention_heads,
        joint_abs=None if joint is None else joint == "abs",
    )  # fmt: skip
    reports = {"fusion": report}
    torch.manual_seed(0)
    networks: dict[str, Backbone] = {}
    for m in task.modalities:
        options = {"relu": eda_relu} if m.backbone == "eda_cnn1d" else {}
        networks[m.name] = build_backbone(
            m.backbone, m.shape, m.width, task.dim, l2_normalise=task.l2_normalise, **options
        )
        if m.name in files:
            reports[m.name] = load_pretrained(networks[m.name], files[m.name])
    for network, loaded in reports.items():
        click.echo("\n".join([f"{network}: {loaded.lines()[0]}", *loaded.lines()[1:]]))
    partly = [n for n in files if any(not p.endswith("num_batches_tracked") for p in reports[n].missing)]
    for name in (*untrained, *partly):
        what = "its last layers have" if name in partly else "it has"
        click.echo(f"warning: {name}: {what} no trained weights, so this bundle's results are meaningless", err=True)
    click.echo(
        "warning: the released code has no missing-modality tokens, so with a missing sensor this bundle's results "
        "are untrained",
        err=True,
    )
    task = replace(task, head=fusion.head, heads=attention_heads)
    bundle = export_bundle(
        JointModel(task, networks, fusion), task, out, name=out.name.removesuffix(".jmt"),
        provenance={
            "weights": "imported",
            "checkpoint": checkpoint.name,
            "sha256": sha256_file(checkpoint),
            "joint_input": "abs" if fusion.joint_abs else "plain",
            "backbones": {name: Path(f).name for name, f in files.items()},
            "missing_modality_tokens": "untrained (zero)",
            "keys": {
                n: {"used": len(r.used), "ignored": [k for k, _ in r.ignored], "missing": list(r.missing)}
                for n, r in reports.items()
            },
        },
        untrained=(*untrained, *partly), overwrite=overwrite,
    )  # fmt: skip
    click.echo(f"wrote {bundle.path} ({bundle.id})")


def _backbone_files(pairs: tuple[str, ...], names: tuple[str, ...]) -> dict[str, str]:
    files = {}
    for pair in pairs:
        name, sign, file = pair.partition("=")
        if not sign or not file or name not in names:
            raise ConfigError(
                f"--backbone {pair} is not MODALITY=FILE with a modality of this task ({', '.join(names)})"
            )
        files[name] = file
    return files
