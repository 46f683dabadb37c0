"""`jmt-edge bench`: measure a bundle here, compare two measurements, predict another device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..errors import ConfigError
from ._command import subcommand
from ._signed import load_signed, signed_option


@subcommand(
    "bench",
    examples=[
        ("jmt-edge bench --task pain --json today.json", "measure the pain demo, and keep the report"),
        ("jmt-edge bench --task pain --compare today.json", "measure again, and compare"),
        ("jmt-edge bench --task pain --people 8", "how many people this machine sustains, up to 8"),
        ("jmt-edge bench --predict orin-nano", "a roofline for a device that is not here"),
    ],
)
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option(
    "--task",
    "task_name",
    default="pain",
    show_default=True,
    help="Which demo bundle, if BUNDLE is omitted.",
    metavar="TASK",
)
@click.option("--backend", default="auto", show_default=True, metavar="NAME")
@click.option("--batch", type=int, default=1, show_default=True, metavar="N")
@click.option(
    "--duration",
    type=float,
    default=20.0,
    show_default=True,
    help="Seconds of measurement, all processes together.",
    metavar="S",
)
@click.option("--hop", type=float, default=0.5, show_default=True, metavar="S")
@click.option("--threads", type=click.IntRange(1, 256), metavar="N")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N")
@click.option(
    "--processes", type=int, default=5, show_default=True, help="Number of fresh processes to measure.", metavar="N"
)
@click.option(
    "--people", type=click.IntRange(1, 64), metavar="N",
    help="Instead: how many people, at most N, run in real time with no window dropped.",
)  # fmt: skip
@click.option("--seconds", type=float, metavar="S", help="With --people: of signal in each run.  [default: 60]")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the report to this file.", metavar="PATH"
)
@click.option(
    "--compare",
    "old",
    type=click.Path(path_type=Path),
    help="An earlier report: print ratios with intervals.",
    metavar="PATH",
)
@click.option(
    "--fail-over",
    default="10%",
    show_default=True,
    help="With --compare: exit 1 past this regression.",
    metavar="PERCENT",
)
@click.option(
    "--predict",
    "target",
    help="orin-nano, orin-nx, agx-orin, thor, h200 or here: by roofline, not measured.",
    metavar="DEVICE",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp16",
    show_default=True,
    help="With --predict.",
)
@click.option("--layers", is_flag=True, help="With --predict: one row per layer.")
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(path_type=Path),
    help="With --predict: write the roofline as PNG.",
    metavar="PATH",
)
@signed_option
def command(
    bundle: Path | None, task_name: str, backend: str, batch: int, duration: float, hop: float, threads: int | None,
    seed: int, processes: int, people: int | None, seconds: float | None, json_path: Path | None, old: Path | None,
    fail_over: str, target: str | None, precision: str, layers: bool, plot_path: Path | None, require_signed: bool,
) -> None:  # fmt: skip
    """Measure each stage of BUNDLE on this machine: latency percentiles, throughput, memory, power.

    Without BUNDLE the packaged demo is measured. Percentiles are over single calls; noisy runs are flagged.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ..engine.bundle import load_bundle
    from .live import demo_bundle

    limit = _percent(fail_over)
    for path in filter(None, (json_path, plot_path)):  # before minutes of measurement
        if not path.resolve().parent.is_dir():
            raise ConfigError(f"cannot write {path.name}: the folder {path.parent} does not exist; create it first")
    loaded = (load_signed if require_signed else load_bundle)(bundle or demo_bundle(task_name))
    if target is not None:
        _predict(loaded, target, precision, hop, json_path, plot_path, threads, layers)
        return
    if people is not None:
        _count_people(loaded, people, seconds or 60.0, backend, hop, threads, json_path)
        return
    from ..bench.compare import compare, different_settings, load_report
    from ..bench.measure import bench

    earlier = load_report(old) if old else None
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as bar:
        job = bar.add_task("warming up", total=1.0)
        report = bench(
            loaded, backend=backend, batch=batch, duration=duration, hop=hop, threads=threads, seed=seed,
            processes=processes, on_step=lambda what, fraction: bar.update(job, description=what, completed=fraction),
        )  # fmt: skip
    if json_path:
        json_path.write_text(json.dumps(report, indent=1) + "\n")
    _show(report)
    if earlier is None:
        return
    rows = compare(earlier, report)
    click.echo(
        f"\nagainst {old} ({earlier['date']}): quick time of a process; ratio = new / old "
        f"(95 % interval over {earlier['processes']} and {processes} processes, including the machine's drift)"
    )
    for line in different_settings(earlier, report):
        click.echo(f"  note: {line}")
    for row in rows:
        flag = "  REGRESSION" if row.regressed(limit) else ""
        click.echo(
            f"  {row.stage:<16} {row.old_ms:9.3f} -> {row.new_ms:9.3f} ms   "
            f"{row.ratio:5.2f} ({row.low:.2f} to {row.high:.2f}){flag}"
        )
    if any(row.regressed(limit) for row in rows):
        raise click.exceptions.Exit(1)


def _count_people(
    bundle: Any, most: int, seconds: float, backend: str, hop: float, threads: int | None, json_path: Path | None
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ..bench.people import count_people

    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        job = bar.add_task("starting", total=1.0)
        report = count_people(
            bundle, most, seconds=seconds, backend=backend, hop=hop, threads=threads,
            on_step=lambda what, fraction: bar.update(job, description=what, completed=fraction),
        )  # fmt: skip
    if json_path:
        json_path.write_text(json.dumps(report, indent=1) + "\n")
    machine = report["machine"]
    click.echo(
        f"{report['engine']}\n{machine['processor']}, {machine['cores']} cores, governor {machine['governor']}, load "
        f"{machine['load']}; hop {hop:g} s, {seconds:g} s of signal a row, simulated sensors\n"
        "  people  dropped      p50      p95      p99  worst p95 ms  cores busy  RSS MB"
    )
    for row in report["people"]:
        click.echo(
            f"  {row['people']:6d} {row['dropped']:8d} {row['p50']:8.1f} {row['p95']:8.1f} {row['p99']:8.1f}  "
            f"{row['worst_p95']:9.1f}    {row['cpu_cores_busy']:10.2f}  {row['peak_rss_mb']:6d}"
        )
    last = report["people"][-1]
    sustained = "1 person" if report["sustained"] == 1 else f"{report['sustained']} people"
    if last["dropped"]:
        click.echo(f"  sustained: {sustained}; with {last['people']} windows were dropped")
    else:
        click.echo(f"  sustained: {sustained}, and more were not tried; give a larger --people")


def _percent(text: str) -> float:
    try:
        value = float(text.rstrip("%")) / 100
    except ValueError:
        raise ConfigError(f"--fail-over '{text}' is not a percentage; write for example --fail-over 10%") from None
    if value <= 0:
        raise ConfigError(f"--fail-over {text} is not positive; write for example --fail-over 10%")
    return value


def _show(report: dict[str, Any]) -> None:
    machine = report["machine"]
    click.echo(
        f"{report['bundle']}  {report['backend']}  {report['precision']}  batch {report['batch']}\n"
        f"{machine['processor']}, {machine['cores']} cores, governor {machine['governor']}, load {machine['load']}, "
        f"{report['threads']} threads, seed {report['seed']}, {report['processes']} processes"
    )
    click.echo(f"  {'ms':<16} {'p50':>9} {'p90':>9} {'p95':>9} {'p99':>9} {'max':>9}   per s")
    rows = {**report["stages"], "end to end": report["end_to_end"]}
    for name, row in rows.items():
        values = " ".join(f"{row[key]:9.3f}" for key in ("p50", "p90", "p95", "p99", "max"))
        rate = f"{row['per_second']:8.1f}" if "per_second" in row else ""
        click.echo(f"  {name:<16} {values} {rate}")
    live = report["end_to_end"]
    first = report["first_result_s"]
    click.echo(
        f"  end to end: {live['from']}; {_or_none(live['real_time_factor'], '.1f', ' x real time')}, "
        f"{report['streams']} streams at a hop of {report['hop']:g} s\n"
        f"  first result {_or_none(first, '.2f', ' s after process start')}; {report['cpu_cores_busy']:.2f} cores busy "
        f"(live {live['cpu_cores_busy']:.2f}), peak RSS {report['peak_rss_mb']:.0f} MB, GPU memory "
        f"{_or_none(report['gpu_memory_mb'], '.0f', ' MB')}"
    )
    board, energy = report["board"], report["energy"]
    if energy is None:
        click.echo("  power: no INA3221 rails on this machine, so energy is not measured")
    else:
        rails = ", ".join(f"{name} {watts:.2f} W" for name, watts in energy["power"]["watts"].items())
        click.echo(
            f"  energy {1e3 * energy['joules_per_inference']:.2f} mJ per inference ({energy['power']['total']:.2f} W; "
            f"{1e3 * energy['above_rest']:.2f} mJ above idle); {rails}"
        )
    if board["clock_mean"]:
        click.echo("  clocks " + ", ".join(f"{name} {mhz:.0f} MHz" for name, mhz in board["clock_mean"].items()))
    if board["temperature_max"]:
        heat = max(board["temperature_max"].items(), key=lambda zone: zone[1])
        click.echo(f"  hottest {heat[0]} {heat[1]:.1f} °C")
    if board["over_current"] or board["throttled"]:
        events = [f"{count} over-current events ({kind})" for kind, count in board["over_current"].items()]
        click.echo(f"  THROTTLED: {', '.join([*events, *board['throttled']])}")
    for reason in report["noise"]["noisy"]:
        click.echo(f"  NOISY: {reason}")


def _or_none(value: float | None, digits: str, unit: str) -> str:
    return "none" if value is None else f"{value:{digits}}{unit}"


def _predict(
    bundle: Any,
    target: str,
    precision: str,
    hop: float,
    json_path: Path | None,
    plot_path: Path | None,
    threads: int | None,
    layers: bool,
) -> None:
    from ..bench.roofline import device, prediction, this_machine, validate

    if target == "here":
        precision = "fp32"
    table = dict.fromkeys(bundle.networks, precision)
    hardware = this_machine(threads) if target == "here" else device(target)
    report = prediction(bundle, hardware, table, hop)
    click.echo(f"PREDICTION (roofline, not measured): {report['device']}, {precision}; figures: {hardware.source}")
    if target == "here":
        validate(report, bundle, threads)
    for name, row in [*report["networks"].items(), ("total", report)]:
        key = "total_ms" if name == "total" else "ms"
        line = f"  {name:<10} {row['gflop']:9.3f} GFLOP {row['mb']:9.2f} MB {row[key]:9.3f} ms"
        if "measured_ms" in row:
            line += f"   measured {row['measured_ms']:9.3f} ms, predicted / measured {row['predicted_to_measured']:.2f}"
        click.echo(line)
    click.echo(f"  {100 * report['share_of_hop']:.1f} % of a hop of {hop:g} s")
    if layers:
        click.echo("  layer                            op        MFLOP       KB  FLOP/B  bound        us")
        for layer in report["layers"]:
            name = f"{layer['network']}/{layer['name']}"[-32:]
            click.echo(
                f"  {name:<32} {layer['op']:<7} {layer['flops'] / 1e6:8.2f} {layer['bytes'] / 1e3:8.1f} "
                f"{layer['intensity']:7.1f}  {layer['bound']:<7} {layer['seconds'] * 1e6:7.1f}"
            )
    bound = [layer["bound"] for layer in report["layers"]]
    click.echo(f"  {bound.count('memory')} layers bound by memory, {bound.count('compute')} by compute")
    if json_path:
        json_path.write_text(json.dumps(report, indent=1) + "\n")
    if plot_path:
        from ..bench.roofline import plot

        plot_path.write_bytes(plot(report))
