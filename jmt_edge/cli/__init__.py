"""The command line. Each command is a module of its own, imported only when it is called, so `--help` is fast.

Exit codes: 0 done; 1 a check that the user asked for failed (`bench --compare`, `doctor`); 2 wrong input or an
unusable machine; 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from .. import __version__
from ..errors import UserError

COMMANDS = {
    "live": "Run the model on a camera, a microphone and an EDA sensor.",
    "station": "Show many beds, which publish over MQTT, on one page.",
    "config": "Check and show the settings of `live` and `station` from a file and the environment.",
    "replay": "Replay a recorded live run, bit for bit.",
    "export": "Convert a recording to CSV, Parquet, XDF or FHIR.",
    "report": "Write a recorded session as one HTML file.",
    "bundle": "Keep a unit's bundles: add, use, roll back, list.",
    "personalise": "Fit a bundle to one person, by the ratings in their recordings.",
    "keygen": "Make a key to sign bundles and recordings with.",
    "sign": "Sign a bundle or a recording.",
    "verify": "Check that a bundle or a recording is what was written and signed.",
    "inspect": "Say what a file is, how good its signal is, and the source string to use.",
    "actions": "Measure the facial actions in a video, relative to the person's rest.",
    "doctor": "Check this machine's sensors and engines, with a remedy for each problem.",
    "sim-board": "Simulate an EDA board on a pseudo-terminal.",
    "bench": "Measure latency, throughput, memory and power; compare runs; predict devices.",
    "build": "Build device engines from a bundle.",
    "calibrate": "Quantise a bundle to INT8 on representative windows.",
    "train": "Train one of the papers' models and export a bundle.",
    "evaluate": "Score a run or a bundle next to the published numbers.",
    "synth": "Write a synthetic cohort in a real data set's layout.",
    "push": "Upload a bundle with its model card to the Hugging Face Hub.",
    "import": "Convert a checkpoint of the published code into a bundle.",
}
# Of these, linear algebra outside the networks is a few small products a window; a second thread gains nothing there
# and then waits for the next one at full speed: 0.2 of a core, measured on two.
ONE_BLAS_THREAD = ("live", "replay", "bench")


class _LazyGroup(click.Group):
    """A group whose commands are `COMMANDS`; the module `cli/<name>.py` holds the click command `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in ONE_BLAS_THREAD:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # is read when NumPy is imported
        name = {"import": "import_"}.get(cmd_name, cmd_name.replace("-", "_"))
        command: click.Command = importlib.import_module(f".{name}", __package__).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jmt-edge")
def cli() -> None:
    """Joint Multimodal Transformer at the edge: pain, valence and arousal from face, voice and EDA.

    A research prototype; not for clinical use.
    """


def main() -> None:
    """Entry point: a user's mistake ends with one sentence, never with a traceback."""
    try:
        # outside standalone mode click returns the code of an Exit raised in a command instead of raising it
        code = cli.main(standalone_mode=False)
        if isinstance(code, int) and code:
            sys.exit(code)
    except UserError as error:
        click.echo(f"jmt-edge: {error}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("jmt-edge: interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
            raise
        from ..live.outputs import discard

        discard(sys.stdout)
        what = error.filename or "the output"
        click.echo(f"jmt-edge: {what} cannot be written ({error.strerror}); make room, or write elsewhere", err=True)
        sys.exit(2)
    except ImportError as error:
        sentence = _cannot_import(error)
        if sentence is None:
            raise
        click.echo(f"jmt-edge: {sentence}", err=True)
        sys.exit(2)


def _cannot_import(error: ImportError) -> str | None:
    """What the user can do about an optional package that is missing or does not load; None for any other module."""
    from ..errors import short
    from ._needs import EXTRA_OF

    if isinstance(error, ModuleNotFoundError):
        extra = EXTRA_OF.get((error.name or "").split(".")[0])
        what = f"this command needs {error.name}, which is not installed; run `pip install 'jmt-edge[{extra}]'`"
        return what if extra else None
    frame = error.__traceback__
    while frame is not None:
        package = frame.tb_frame.f_globals.get("__name__", "").split(".")[0]
        if package in EXTRA_OF:  # the outermost that was being imported
            return f"{package} cannot be loaded ({short(error)}); install a version of it that fits the other packages"
        frame = frame.tb_next
    return None
