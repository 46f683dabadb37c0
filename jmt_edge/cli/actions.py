"""`jmt-edge actions`: what the face in a video does, frame by frame."""

from __future__ import annotations

from pathlib import Path

import click

from ._command import subcommand


@subcommand(
    "actions",
    examples=[
        ("jmt-edge actions person.mp4 --out actions.csv", "a row a frame, against the median of the video"),
        ("jmt-edge actions person.mp4 --rest 0-2 --out actions.csv", "against its first two seconds"),
    ],
)
@click.argument("video", type=click.Path(path_type=Path), metavar="VIDEO")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", required=True, help="The table (CSV).")
@click.option(
    "--rest", metavar="FROM-TO", help="Seconds in which the face is at rest: '0-2'.  [default: median of the video]"
)
@click.option(
    "--follow", type=click.Choice(["largest", "central", "first"]), default="largest", show_default=True,
    help="Whose face is measured.",
)  # fmt: skip
def command(video: Path, out: Path, rest: str | None, follow: str) -> None:
    """Measure the face in VIDEO: head pose, eyes, brows, nose, lips, and the facial actions that they stand for.

    One row a frame. Geometric and uncalibrated: actions are relative to the person's own rest, and no strength was
    compared with coded faces.
    """
    from rich.console import Console

    from ..clips.actions import COLUMNS, against_rest, face_actions, write_actions
    from ..errors import ConfigError
    from ..media.video import video_frames, video_times
    from ..preprocessing.actions import rest_of
    from ._progress import step_bar

    span = None if rest is None else _span(rest)
    total = len(video_times(video))
    frames = []
    with step_bar(Console(stderr=True)) as on_step:
        for frame in face_actions(video_frames(video), follow):
            frames.append(frame)
            on_step("faces", min(1.0, len(frames) / total))
    seen = [frame for frame in frames if frame.measures is not None]
    calm = seen if span is None else [frame for frame in seen if span[0] <= frame.time <= span[1]]
    measures = [frame.measures for frame in calm if frame.measures is not None]
    people = {frame.track for frame in seen}
    everyone = rest_of(measures)
    own = {track: [f.measures for f in calm if f.track == track and f.measures is not None] for track in people}
    table = against_rest(frames, {track: rest_of(own[track]) if own[track] else everyone for track in people})
    try:
        write_actions(out, table)
    except OSError as error:
        raise ConfigError(f"cannot write to {out} ({error.strerror}); choose another --out") from None
    blinks = sum(f.blink and not before.blink for before, f in zip([*table[:1], *table], table))
    click.echo(f"{out}: {len(frames)} frames, {len(seen)} with a usable face, {blinks} blinks, {len(COLUMNS)} columns")
    if span is None:
        click.echo("jmt-edge: rest is the median of all frames, which is wrong where the face is seldom calm; "
                   "name a calm span with --rest", err=True)  # fmt: skip


def _span(text: str) -> tuple[float, float]:
    from ..errors import ConfigError

    try:
        first, _, last = text.partition("-")
        span = (float(first), float(last))
    except ValueError:
        span = (0.0, -1.0)
    if not 0 <= span[0] < span[1] < float("inf"):
        raise ConfigError(f"--rest {text} is not a span of time; give it in seconds, as in --rest 0-2")
    return span
