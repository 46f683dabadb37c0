"""What each command needs besides options that make sense: one table, checked before a command begins to work.

A need that shows after a minute of work has cost that minute. `docs/reference/commands.md` prints the same table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import BundleError, ConfigError, DataError, InstallError, UserError
from ..plain_files import printable

Flags = Mapping[str, Any]  # a command's parameters by name, as click passes them

# module -> the extra of pyproject.toml that brings it
EXTRA_OF = {
    "torch": "train",
    "torchvision": "train",
    "lightning": "train",
    "optuna": "train",
    "onnxscript": "train",
    "matplotlib": "train",
    "onnx": "build",
    "cryptography": "sign",
    "pyarrow": "record",
    "av": "record",
    "starlette": "page",
    "uvicorn": "page",
    "websockets": "page",
    "pylsl": "lsl",
    "paho": "mqtt",
    "huggingface_hub": "hub",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "triton": "cubin",
    "torch_tensorrt": "torch-tensorrt",
    "cuda": "gpu",
    "openvino": "openvino",
}


@dataclass(frozen=True)
class Need:
    """One condition of a command. when: the options that call for it, for the documentation; empty: always.

    check: raises a UserError where the condition does not hold.
    """

    command: str
    when: str
    what: str
    applies: Callable[[Flags], bool]
    check: Callable[[Flags], None]

    @property
    def name(self) -> str:
        return f"{self.command} {self.when}: {self.what}"


def require(command: str, flags: Flags) -> None:
    """Check every need of `command` that its options call for, in the table's order.

    Raises InstallError, ConfigError, BundleError, BackendError, DataError or SourceError, in one sentence.
    """
    for need in NEEDS:
        if need.command == command and need.applies(flags):
            need.check(flags)


def needs_table() -> list[str]:
    """The table as Markdown, for the page of commands."""
    from ..markdown import table

    return table(("command", "with", "needs"), [[f"`{n.command}`", n.when, n.what] for n in NEEDS])


# ---- when a need applies


def _always(flags: Flags) -> bool:
    return True


def _given(*names: str) -> Callable[[Flags], bool]:
    """All of these options were given."""
    return lambda flags: all(flags[name] not in (None, False, "", ()) for name in names)


def _is(name: str, *values: str) -> Callable[[Flags], bool]:
    return lambda flags: flags[name] in values


def _reads_data_set(flags: Flags) -> bool:
    """--data is neither saved windows nor a recording, which need no torch."""
    data = flags["data"]
    return data is not None and data.suffix != ".npz" and not (data / "timeline.jsonl").is_file()


def _records_faces(flags: Flags) -> bool:
    return "face" in (flags["record_raw"] or "").replace(" ", "").split(",")


# ---- packages


def _packages(
    command: str, when: str, applies: Callable[[Flags], bool], *modules: str, extra: str | None = None
) -> Need:
    """The packages of `modules`, which `extra` brings (default: the first one's)."""
    extra = extra or EXTRA_OF[modules[0]]

    def check(flags: Flags) -> None:
        for module in modules:
            if find_spec(module) is None:
                what = when.replace("`", "") or command
                raise InstallError(
                    f"{what} needs {module}, which is not installed; run `pip install 'jmt-edge[{extra}]'`"
                )

    return Need(command, when, f"`[{extra}]` ({', '.join(modules)})", applies, check)


# ---- files and folders


def _new(name: str, default: Callable[[Flags], Path] | None, error: type[UserError], flags: Flags) -> None:
    """The output does not exist yet, and a folder that exists can be written."""
    path: Path = flags[name] or (default(flags) if default else Path())
    if os.path.lexists(path) and not flags.get("overwrite"):
        raise error(f"{printable(path)} exists; choose another --out, or remove it first")
    _writable(path)


def _writable(path: Path) -> None:
    """Raises ConfigError where `path` cannot be made, because of what exists of the folders above it."""
    folder = path.absolute()
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "permission denied" if folder.is_dir() else "not a folder"
        raise ConfigError(f"cannot write {printable(path)}: {printable(folder)} is {what}; choose another place") from (
            None
        )


def _outputs(*names_and_flags: Any) -> None:
    """The folders of the files to be written exist."""
    *names, flags = names_and_flags
    for path in (flags[name] for name in names if flags[name] is not None):
        if not path.resolve().parent.is_dir():
            raise ConfigError(f"cannot write {path.name}: the folder {path.parent} does not exist; create it first")
        if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
            what = "a folder" if path.is_dir() else "permission denied"
            raise ConfigError(f"cannot write {printable(path)}: {what}; choose another file")
        _writable(path.absolute().parent)


def _exists(name: str, flags: Flags) -> None:
    if not flags[name].exists():
        raise DataError(f"there is no {printable(flags[name])}; check --{name.replace('_', '-')}")


def _built(flags: Flags) -> Path:
    bundle: Path = flags["bundle"]
    return bundle.with_name(f"{_manifest(bundle)['name']}-{flags['precision']}.jmt")


def _calibrated(flags: Flags) -> Path:
    bundle: Path = flags["bundle"]
    return bundle.with_name(f"{_manifest(bundle)['name']}-calibrated.jmt")


def _manifest(bundle: Path) -> dict[str, Any]:
    """The manifest, without the hashes of the other files, which take longer."""
    from ..engine.manifest import MANIFEST, read_manifest

    try:
        return read_manifest((bundle / MANIFEST).read_bytes())
    except (OSError, ValueError):
        from ..engine.bundle import load_bundle

        return load_bundle(bundle).manifest  # which says what is wrong


# ---- what single commands ask


def _cubin_targets(flags: Flags) -> None:
    from ..kernels.aot import targets

    targets(flags["cubin"])
    fusion = _manifest(flags["bundle"])["networks"]["fusion"]
    if not fusion.get("folded") and "weights" not in fusion:
        raise ConfigError(
            f"bundle {printable(flags['bundle'])} holds no weights of its fusion to compile; export it with them"
        )


def _possible(flags: Flags) -> None:
    from ..compiler.build import choose_builder, parse_batch, require_possible

    builder, _ = choose_builder(flags["builder"], flags["target"])
    require_possible(
        flags["bundle"], _manifest(flags["bundle"]), precision=flags["precision"], builder=builder,
        target=flags["target"], batch=parse_batch(flags["batch"]),
    )  # fmt: skip


def _backend(flags: Flags) -> None:
    from ..engine.backends import require_backend

    require_backend(flags["backend"])


def _report(flags: Flags) -> None:
    from ..bench.compare import load_report

    load_report(flags["old"])


def _device(flags: Flags) -> None:
    from ..bench.roofline import device

    if flags["target"] != "here":
        device(flags["target"])


def _counts(flags: Flags) -> None:
    for name, option in (("target", "--predict"), ("old", "--compare")):
        if flags[name] is not None:
            raise ConfigError(f"--people counts people, which {option} does not; leave one of them out")


def _also(sentence: str, name: str, flags: Flags) -> None:
    """An option that has no effect without the option `name`."""
    if not _given(name)(flags):
        raise ConfigError(sentence)


def _free_address(flags: Flags) -> None:
    from ..live.page.security import require_free

    require_free(flags["page"])


def _broker(flags: Flags) -> None:
    from ..beds.broker import parse_broker

    url = flags["mqtt"] if "mqtt" in flags else flags["url"]
    parse_broker(url, flags["mqtt_password_file"], flags["mqtt_ca"])


def _one_way(flags: Flags) -> None:
    if not flags["url"] and not flags["beds"]:
        raise ConfigError("the station needs beds; give --mqtt mqtt://HOST/PREFIX, or --bed NAME=URL for each bed")
    if flags["url"] and flags["beds"]:
        raise ConfigError("a station reads from a broker or from the beds' pages; give --mqtt or --bed, not both")


def _pages(flags: Flags) -> None:
    from ..beds.direct import parse_beds

    parse_beds(flags["beds"], flags["bed_token_file"], flags["bed_ca"])


def _discovery(flags: Flags) -> None:
    from ..beds.broker import check_topic

    _also("--mqtt-discovery announces a unit on a broker; give it with --mqtt URL", "mqtt", flags)
    check_topic(flags["mqtt_discovery"].strip("/"), "write the topic that Home Assistant reads, such as homeassistant")


def _people(flags: Flags) -> None:
    from ._people import check_people

    check_people(flags)


def _bed(flags: Flags) -> None:
    from ..beds.broker import check_bed

    if flags["people"]:
        return  # each has a name
    if not flags["bed"]:
        raise ConfigError("--mqtt publishes as a bed; give its name with --bed NAME")
    check_bed(flags["bed"])


def _session(flags: Flags) -> None:
    _also("--session begins on the page; give it with --page", "page", flags)
    if flags["speed"] != "1":
        raise ConfigError("--session is for a person who is there, so it needs real time; leave --speed max out")


def _pair(flags: Flags) -> None:
    if (flags["page_cert"] is None) != (flags["page_key"] is None):
        raise ConfigError("TLS needs both a certificate and its key; give --page-cert FILE and --page-key FILE")


def _plot_format(flags: Flags) -> None:
    if flags["plot"].suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"--plot {flags['plot']} has no known ending; give a .png, .pdf or .svg")
    _outputs("plot", flags)


def _cuda(flags: Flags) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("--accelerator gpu: torch finds no CUDA device here; give --accelerator auto or cpu")


def _recipes(flags: Flags) -> None:
    """Every recipe with its changes, and with every value of the grid."""
    from ..training.recipes import grid_changes, load_recipe

    changes = [*flags["overrides"], *([f'precision="{flags["precision"]}"'] if flags.get("precision") else [])]
    for name in flags["recipe"].split(","):
        for change in ((), *grid_changes(flags.get("grid", ()))):
            load_recipe(name.strip(), (*changes, *change), variant=flags["variant"] or "").resolve()


def _protocol(flags: Flags) -> None:
    from ..training.splits import require_protocol

    require_protocol(flags["protocol"])


def _loggers(flags: Flags) -> None:
    from ..training.loggers import parse_loggers

    parse_loggers(flags["logger"])


def _launcher(flags: Flags) -> None:
    from ..training.launch import Launcher, require_launcher

    require_launcher(Launcher(flags["launcher"]))


def _repository(flags: Flags) -> None:
    if flags["repo"].count("/") != 1:
        raise ConfigError(f"'{flags['repo']}' is not the name of a repository; write OWNER/NAME")


def _subject(flags: Flags) -> None:
    if flags["form"] != "fhir":
        raise ConfigError("--subject is for --to fhir; leave it out")
    if not re.fullmatch(r"(https?://\S+/)?[A-Za-z]+/[A-Za-z0-9\-.]{1,64}|urn:uuid:[0-9a-f-]{36}", flags["subject"]):
        raise ConfigError(f"'{printable(flags['subject'])}' is not a FHIR reference; write --subject Patient/17")


def _form(flags: Flags) -> None:
    if flags["events"] and flags["form"] not in (None, "csv", "parquet"):
        raise ConfigError(f"--events writes a table, which {flags['form']} is not; leave out --to, or use --to parquet")
    if flags["form"] is None and not flags["events"]:
        raise ConfigError("nothing says what to write; give --to csv, parquet, xdf or fhir, or --events")


def _exported(flags: Flags) -> None:
    from .export import target_of

    out = target_of(flags)
    if out.is_file() or (out.is_dir() and (flags["form"] in ("xdf", "fhir") or any(out.iterdir()))):
        raise ConfigError(f"{printable(out)} exists and is not overwritten; choose another --out")
    _writable(out)


def _reported(flags: Flags) -> None:
    from .report import target_of

    out = target_of(flags)
    if out.exists():
        raise ConfigError(f"{printable(out)} exists and is not overwritten; choose another --out")
    _writable(out)


def _trains(flags: Flags) -> bool:
    """Not one of the options that only look."""
    return not flags["list_recipes"] and flags["check"] is None


def _all_of(*conditions: Callable[[Flags], bool]) -> Callable[[Flags], bool]:
    return lambda flags: all(holds(flags) for holds in conditions)


_TRAIN = ("torch", "torchvision", "lightning", "onnx", "onnxscript")
_SIGNED = "`--require-signed`"
_A_FOLDER = "a folder that exists and may be written"

NEEDS: tuple[Need, ...] = (
    Need("live", "`--person`", "names, keys and devices that can be used, and no option that is about one person",
         _given("people"), _people),
    _packages("live", "`--record-raw face`", _records_faces, "av"),
    _packages("live", "`--page`", _given("page"), "starlette", "uvicorn", "websockets"),
    _packages("live", "`--lsl`", _given("lsl"), "pylsl"),
    _packages("live", _SIGNED, _given("require_signed"), "cryptography"),
    Need("live", "`--record-raw`", "`--record`", _given("record_raw"),
         partial(_also, "--record-raw needs a recording to keep the raw data in; give --record DIR", "record")),
    Need("live", "`--resume`", "`--record`", _given("resume"),
         partial(_also, "--resume continues a recording; give its folder with --record DIR", "record")),
    Need("live", "`--record`", _A_FOLDER, _given("record"), lambda flags: _writable(flags["record"])),
    Need("live", "`--log-file`", _A_FOLDER, _given("log_file"), partial(_outputs, "log_file")),
    Need("live", "`--page-cert`, `--page-key`", "both of them", _always, _pair),
    Need("live", "`--page-cert`, `--page-key`", "`--page`", _given("page_cert"),
         partial(_also, "--page-cert and --page-key are of the page; give it with --page", "page")),
    Need("live", "`--session`", "`--page`, and real time", _given("session"), _session),
    Need("live", "`--page`", "an address that is free", _given("page"), _free_address),
    Need("live", "`--backend`", "what the backend needs", _given("backend"), _backend),
    _packages("live", "`--mqtt`", _given("mqtt"), "paho"),
    Need("live", "`--mqtt`", "an address, a password file and certificates that can be used", _given("mqtt"), _broker),
    Need("live", "`--mqtt`", "`--bed`, or `--person`", _given("mqtt"), _bed),
    Need("live", "`--bed`", "`--mqtt`", _given("bed"),
         partial(_also, "--bed names a unit for --mqtt; give the broker with --mqtt URL", "mqtt")),
    Need("live", "`--mqtt-discovery`", "`--mqtt`, and a topic that can be published to", _given("mqtt_discovery"),
         _discovery),
    Need("live", "`--mqtt-ca`", "`--mqtt`", _given("mqtt_ca"),
         partial(_also, "--mqtt-ca checks a broker; give it with --mqtt URL", "mqtt")),
    Need("live", "`--mqtt-password-file`", "`--mqtt`", _given("mqtt_password_file"),
         partial(_also, "--mqtt-password-file is for a broker; give it with --mqtt URL", "mqtt")),
    _packages("station", "", _always, "starlette", "uvicorn", "websockets"),
    Need("station", "", "`--mqtt` or `--bed`, not both", _always, _one_way),
    _packages("station", "`--mqtt`", _given("url"), "paho"),
    Need("station", "`--mqtt`", "an address, a password file and certificates that can be used", _given("url"),
         _broker),
    Need("station", "`--mqtt-ca`", "`--mqtt`", _given("mqtt_ca"),
         partial(_also, "--mqtt-ca checks a broker; give it with --mqtt URL", "url")),
    Need("station", "`--mqtt-password-file`", "`--mqtt`", _given("mqtt_password_file"),
         partial(_also, "--mqtt-password-file is for a broker; give it with --mqtt URL", "url")),
    Need("station", "`--bed`", "names, addresses, a token file and certificates that can be used", _given("beds"),
         _pages),
    Need("station", "`--bed-ca`", "`--bed`", _given("bed_ca"),
         partial(_also, "--bed-ca checks the beds' pages; give them with --bed NAME=URL", "beds")),
    Need("station", "`--bed-token-file`", "`--bed`", _given("bed_token_file"),
         partial(_also, "--bed-token-file is for the beds' pages; give them with --bed NAME=URL", "beds")),
    Need("station", "`--page-cert`, `--page-key`", "both of them", _always, _pair),
    Need("station", "`--page`", "an address that is free", _always, _free_address),
    Need("station", "`--log-file`", _A_FOLDER, _given("log_file"), partial(_outputs, "log_file")),
    _packages("replay", "`--page`", _given("page"), "starlette", "uvicorn", "websockets"),
    _packages("replay", _SIGNED, _given("require_signed"), "cryptography"),
    Need("replay", "`--page`", "an address that is free", _given("page"), _free_address),
    Need("replay", "`--backend`", "what the backend needs", _given("backend"), _backend),
    _packages("export", "`--to parquet`", _is("form", "parquet"), "pyarrow"),
    Need("export", "`--to`, `--events`", "one of them; `--events` goes with `csv` and `parquet`", _always, _form),
    Need("export", "`--subject`", "`--to fhir`, and a reference", _given("subject"), _subject),
    _packages("export", _SIGNED, _given("require_signed"), "cryptography"),
    Need("export", "", "an output that does not exist, or an empty folder", _always, _exported),
    _packages("report", _SIGNED, _given("require_signed"), "cryptography"),
    Need("report", "", "an `--out` that does not exist", _always, _reported),
    _packages("personalise", _SIGNED, _given("require_signed"), "cryptography"),
    Need("personalise", "", "an `--out` that does not exist", _always, partial(_new, "out", None, BundleError)),
    _packages("keygen", "", _always, "cryptography"),
    _packages("sign", "", _always, "cryptography"),
    _packages("verify", "", lambda flags: not flags["unsigned"], "cryptography"),
    _packages("inspect", "`--plot`", _given("plot"), "matplotlib", extra="formats"),
    Need("inspect", "`--plot`", "a .png, .pdf or .svg in a folder that exists", _given("plot"), _plot_format),
    Need("actions", "`--out`", _A_FOLDER, _always, partial(_outputs, "out")),
    _packages("bench", _SIGNED, _given("require_signed"), "cryptography"),
    _packages("bench", "`--predict`", _given("target"), "onnx"),
    _packages("bench", "`--plot`", _given("plot_path"), "matplotlib", extra="formats"),
    Need("bench", "`--plot`", "`--predict`", _given("plot_path"),
         partial(_also, "--plot draws a prediction; give --predict DEVICE too", "target")),
    Need("bench", "`--layers`", "`--predict`", _given("layers"),
         partial(_also, "--layers lists a prediction; give --predict DEVICE too", "target")),
    Need("bench", "`--seconds`", "`--people`", _given("seconds"),
         partial(_also, "--seconds is of each run of --people N; give it too, or use --duration", "people")),
    Need("bench", "`--people`", "a measurement of its own: no `--predict`, no `--compare`", _given("people"), _counts),
    Need("bench", "`--predict`", "a device of its table", _given("target"), _device),
    Need("bench", "`--json`, `--plot`", _A_FOLDER, _always, partial(_outputs, "json_path", "plot_path")),
    Need("bench", "`--compare`", "a report of `--json`", _given("old"), _report),
    Need("bench", "`--backend`", "what the backend needs", _given("backend"), _backend),
    _packages("build", "", _always, "onnx"),
    _packages("build", "`--data` (a data set)", _reads_data_set, "torch", "lightning"),
    _packages("build", "`--cubin`", _given("cubin"), "torch", "triton", extra="cubin"),
    _packages("build", _SIGNED, _given("require_signed"), "cryptography"),
    Need("build", "`--out`", "a name that does not exist", _always, partial(_new, "out", _built, BundleError)),
    Need("build", "`--data`", "data that exist", _given("data"), partial(_exists, "data")),
    Need("build", "`--builder`, `--target`, `--precision`, `--batch`",
         "a builder that runs here, compiles for the target, and a bundle that has the precision "
         "([table](building.md#what-goes-with-what))", _always, _possible),
    Need("build", "`--cubin`", "devices of its table, and the fusion's weights in the bundle", _given("cubin"),
         _cubin_targets),
    _packages("calibrate", "", _always, "onnx"),
    _packages("calibrate", "`--data` (a data set)", _reads_data_set, "torch", "lightning"),
    _packages("calibrate", _SIGNED, _given("require_signed"), "cryptography"),
    Need("calibrate", "`--out`", "a name that does not exist", _always,
         partial(_new, "out", _calibrated, BundleError)),
    Need("calibrate", "`--data`", "data that exist", _given("data"), partial(_exists, "data")),
    _packages("train", "", lambda flags: not flags["list_recipes"], *_TRAIN),
    _packages("train", "`--grid`", _given("grid"), "optuna"),
    Need("train", "`--logger`", "known names, and their packages", _trains, _loggers),
    Need("train", "`--launcher`", "its package, and Slurm's `sbatch`", _trains, _launcher),
    Need("train", "`--accelerator gpu`", "a CUDA device", _all_of(_trains, _is("accelerator", "gpu")), _cuda),
    Need("train", "`--recipe`, `--set`, `--grid`", "known recipes, keys and values",
         _all_of(_trains, _given("recipe")), _recipes),
    Need("train", "`--protocol`", "a known protocol", _all_of(_trains, _given("protocol")), _protocol),
    Need("train", "`--data`", "data that exist", _all_of(_trains, _given("data")), partial(_exists, "data")),
    Need("train", "`--check`", "data that exist", _given("check"), partial(_exists, "check")),
    _packages("evaluate", "", _always, *_TRAIN),
    Need("evaluate", "`--data`", "data that exist", _given("data"), partial(_exists, "data")),
    Need("evaluate", "`--recipe`, `--set`", "known recipes, keys and values", _given("suite", "recipe"), _recipes),
    _packages("synth", "`affwild2`", _is("kind", "affwild2"), "av"),
    Need("synth", "`--out`", _A_FOLDER, _given("out"), lambda flags: _writable(flags["out"])),
    _packages("push", "", _always, "huggingface_hub"),
    Need("push", "", "a repository named OWNER/NAME", _always, _repository),
    _packages("import", "", _always, *_TRAIN),
    Need("import", "", "a checkpoint that exists", _always, partial(_exists, "checkpoint")),
    Need("import", "`--out`", "a name that does not exist, or `--overwrite`", _always,
         partial(_new, "out", None, BundleError)),
)  # fmt: skip
