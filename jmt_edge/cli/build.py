"""`jmt-edge build`: device engines from a bundle, checked against float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._command import subcommand
from ._signed import load_signed, signed_option


@subcommand(
    "build",
    examples=[
        ("jmt-edge build pain.jmt --precision auto --builder onnxruntime", "for this CPU"),
        ("jmt-edge build pain.jmt --precision fp16 --builder tensorrt-rtx --target sm_86", "without a GPU"),
        ("jmt-edge build pain.jmt --cubin sm_87,sm_110,sm_90", "the fused fusion for Orin, Thor and H200"),
    ],
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="New bundle [default: NAME-<precision>.jmt beside it].",
    metavar="PATH",
)
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "int8", "auto"]), default="auto", show_default=True,
    help="int8 needs a bundle written by `calibrate`; auto keeps the fastest faithful one, timed here.",
)  # fmt: skip
@click.option(
    "--builder", default="auto",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx", "torch-tensorrt", "onnxruntime"]), show_default=True,
)  # fmt: skip
@click.option(
    "--target",
    default="current",
    show_default=True,
    help="current, or sm_NN to compile for another device.",
    metavar="DEVICE",
)
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="Dataset, recording with raw samples, or saved windows (.npz) for the fidelity check [default: simulated].",
    metavar="PATH",
)  # fmt: skip
@click.option(
    "--windows",
    "count",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Windows for the comparison.",
    metavar="N",
)
@click.option(
    "--batch",
    metavar="MIN,OPT,MAX",
    help="MIN,OPT,MAX of the first axis, for engines with a dynamic batch [default: static 1].",
)
@click.option(
    "--cubin", help="Also compile the fused Triton fusion for these devices, e.g. sm_87,sm_110,sm_90.", metavar="LIST"
)
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@signed_option
def command(
    bundle: Path, out: Path | None, precision: str, builder: str, target: str, data: Path | None, count: int,
    batch: str | None, cubin: str | None, seed: int, require_signed: bool,
) -> None:  # fmt: skip
    """Build engines for every network of BUNDLE into a new bundle, with a fidelity report.

    Without a GPU, TensorRT-RTX compiles for --target sm_86 and others, --cubin compiles the fused fusion for
    any device, and onnxruntime engines are timed on this CPU. On a GPU, auto times FP16, INT8 and the cubin.
    """
    from rich.console import Console

    from ..calibration.sources import load_windows
    from ..compiler.build import build, choose_builder, left_out, load_graphs, parse_batch
    from ..compiler.report import layer_sentence, timing_lines
    from ..engine.bundle import load_bundle
    from ._progress import step_bar

    source = load_signed(bundle) if require_signed else load_bundle(bundle)
    target_path = out or bundle.with_name(f"{source.name}-{precision}.jmt")
    console = Console(stderr=True)
    chosen, why = choose_builder(builder, target)
    console.print(f"builder: {chosen} ({why})")
    for what in left_out(source.manifest, precision):
        console.print(f"left out: {what}")
    graphs = load_graphs(source)
    with step_bar(console) as on_step:
        on_step("windows for the comparison", 0.0)
        windows = load_windows(source, data, count, seed=seed)
        extra_files: dict[str, bytes] = {}
        extra_manifest: dict[str, Any] = {}
        if cubin:
            from ..compiler.cubins import bundle_cubins
            from ..kernels.aot import targets as cubin_targets

            targets = cubin_targets(cubin)
            on_step(f"cubins for {', '.join(targets)}", 0.0)
            extra_files, extra_manifest = bundle_cubins(source, targets)
        built = build(
            source, target_path, precision=precision, builder=chosen, why=why, target=target, windows=windows,  # type: ignore[arg-type]
            batch=parse_batch(batch), graphs=graphs, extra_files=extra_files, extra_manifest=extra_manifest,
            on_step=on_step,
        )  # fmt: skip
    engine = built.report["engine"]
    for name, entry in engine["networks"].items():
        click.echo(layer_sentence(name, entry, built.report["networks"][name]["note"]))
    for line in timing_lines(engine["timings"]):
        click.echo(line.removeprefix("- "))
    for score in built.fidelity.scores:
        limit = "" if score.limit is None else f" (limit {score.limit:g}: {'holds' if score.holds else 'BROKEN'})"
        click.echo(f"{score.output} {score.score}: {score.reference:.4f} -> {score.converted:.4f}{limit}")
    click.echo(f"wrote {built.bundle.path} ({built.bundle.id}); report in {built.bundle.path / engine['report']}")
    if not built.fidelity.holds:
        click.echo(
            "the conversion changes the scores by more than the limit; use a wider precision, or calibrate again",
            err=True,
        )
        raise click.exceptions.Exit(1)
