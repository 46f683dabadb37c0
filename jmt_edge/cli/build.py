"""`jmt-edge build`: device engines from a bundle, checked against float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from ._signed import load_signed, signed_option


@click.command(name="build")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="New bundle [default: NAME-<precision>.jmt beside it].")
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "int8", "auto"]), default="auto", show_default=True,
    help="int8 needs a bundle written by `calibrate`; auto keeps the fastest faithful one, timed here.",
)  # fmt: skip
@click.option(
    "--builder", default="auto",
    type=click.Choice(["auto", "tensorrt", "tensorrt-rtx", "torch-tensorrt", "onnxruntime"]), show_default=True,
)  # fmt: skip
@click.option("--target", default="current", show_default=True, help="current, or sm_NN to compile for another device.")
@click.option(
    "--data", type=click.Path(path_type=Path),
    help="Dataset, recording with raw samples, or saved windows (.npz) for the fidelity check [default: simulated].",
)  # fmt: skip
@click.option(
    "--windows", "count", type=click.IntRange(1), default=16, show_default=True, help="Windows for the comparison."
)
@click.option("--batch", help="MIN,OPT,MAX of the first axis, for engines with a dynamic batch [default: static 1].")
@click.option("--cubin", help="Also compile the fused Triton fusion for these devices, e.g. sm_87,sm_110,sm_90.")
@click.option("--seed", type=int, default=0, show_default=True)
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
    from ..compiler.build import build, choose_builder
    from ..compiler.report import layer_sentence, timing_lines
    from ..engine.bundle import load_bundle
    from ._progress import step_bar

    source = load_signed(bundle) if require_signed else load_bundle(bundle)
    target_path = out or bundle.with_name(f"{source.name}-{precision}.jmt")
    console = Console(stderr=True)
    shape = _batch(batch)
    targets = _targets(cubin) if cubin else []
    with step_bar(console) as on_step:
        on_step("windows for the comparison", 0.0)
        windows = load_windows(source, data, count, seed=seed)
        extra_files: dict[str, bytes] = {}
        extra_manifest: dict[str, Any] = {}
        if targets:
            from ..compiler.cubins import bundle_cubins

            on_step(f"cubins for {', '.join(targets)}", 0.0)
            extra_files, extra_manifest = bundle_cubins(source, targets)
        chosen, why = choose_builder(builder, target)
        console.print(f"builder: {chosen} ({why})")
        built = build(
            source, target_path, precision=precision, builder=chosen, why=why, target=target, windows=windows,  # type: ignore[arg-type]
            batch=shape, extra_files=extra_files, extra_manifest=extra_manifest, on_step=on_step,
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


def _targets(text: str) -> list[str]:
    """The devices listed, checked before any work is done. Raises ConfigError for an unknown one."""
    from ..kernels.aot import target

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--cubin '{text}' lists no device; write for example --cubin sm_87,sm_110")
    for name in names:
        target(name)
    return names


def _batch(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        low, best, high = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--batch '{text}' is not MIN,OPT,MAX; write for example --batch 1,4,16") from None
    if not 1 <= low <= best <= high:
        raise ConfigError(f"--batch {text} is not in order; give 1 <= MIN <= OPT <= MAX")
    return low, best, high
