"""Novelty densities of a bundle: what its training people's clips look like, and a limit from other people.

`python -m jmt_edge.training.novelty BUNDLE...` adds `novelty.safetensors` to demo bundles, whose people can be
simulated again; bundles of other data get theirs when they are exported (`experiment.export_run`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from ..engine.bundle import Bundle, load_bundle, write_bundle
from ..engine.novelty import DESCRIPTIONS, FILE, MIN_CLIPS, Novelty, fit, save_novelty
from ..errors import ConfigError
from ..tasks import Modality, Task
from .clips import ClipStore, build_clips, default_cache
from .data import WindowTable, cut_windows
from .streams import simulated_cohort

F32 = NDArray[np.float32]
Described = Mapping[str, F32]  # modality -> (N, D)
Stores = tuple[Mapping[str, ClipStore], Mapping[str, ClipStore]]  # of the training people, of the others
CHUNK = 64  # clips in memory at a time
# training people, people of the limit, windows of each; a sequence's windows share their clips
PEOPLE = {"pain": (27, 40, 4), "affect": (40, 40, 1), "trimodal": (40, 40, 2)}
HELD_OUT_SEED = {"pain": 2, "affect": 1, "trimodal": 1}  # beside the training's: other people


def fit_all(training: Described, held_out: Sequence[Described]) -> dict[str, Novelty]:
    """The density of each modality of which there are enough clips, from descriptions (N, D) of them. held_out: of each
    person.
    """
    found = {}
    for name, clips in training.items():
        others = [person[name] for person in held_out if len(person[name])]
        if len(others) > 1 and min(len(clips), sum(map(len, others))) >= MIN_CLIPS:
            found[name] = fit(clips, others)
    return found


def described(m: Modality, store: ClipStore, rows: NDArray[np.int64], *, as_boards: bool = False) -> F32:
    """Descriptions (N, D) of the usable clips among `rows` of a store. as_boards: also as EDA boards give them."""
    rows = np.unique(rows[rows >= 0])
    rows = rows[store.present[rows]]
    found = []
    for i in range(0, max(len(rows), 1), CHUNK):
        clips = store.load(rows[i : i + CHUNK])
        every = [clips, *boards(clips, m)] if as_boards and m.name == "eda" and len(clips) else [clips]
        found += [DESCRIPTIONS[m.name](some) for some in every]
    return np.concatenate(found)


def boards(clips: F32, m: Modality) -> list[F32]:
    """EDA clips (N, 1, T) as a converter of 10 bits over 25 uS (BITalino) and a wrist-band at 4 Hz (E4) give them.

    They belong to the limit: a known sensor is not a reason to refuse a person.
    """
    step = 25 / 1024 / (m.std[0] if m.std else 1.0)
    at = np.arange(clips.shape[-1])
    seen = np.unique(np.append(at[:: round(clips.shape[-1] / m.span / 4)], at[-1]))
    slow = PchipInterpolator(seen, clips[..., seen], axis=-1)(at)
    return [(np.round(clips / step) * step).astype(np.float32), slow.astype(np.float32)]


def fit_windows(task: Task, training: WindowTable, held_out: WindowTable, stores: Stores) -> dict[str, Novelty]:
    """The densities for the people of two tables of windows, with the stores of each side's clips."""
    known = {m.name: described(m, stores[0][m.name], training.rows[m.name]) for m in task.modalities}
    others = [
        {
            m.name: described(m, stores[1][m.name], held_out.rows[m.name][held_out.subject == person], as_boards=True)
            for m in task.modalities
        }
        for person in np.unique(held_out.subject)
    ]
    return fit_all(known, others)


def add_to_demo(path: Path, *, cache: Path, workers: int = 1) -> Bundle:
    """Fit a demo bundle's densities on the people it was trained on and write the bundle with them.

    Raises ConfigError for a bundle whose people cannot be simulated again.
    """
    from .demo import SIZE  # which trains, and so imports this module

    bundle = load_bundle(path)
    provenance = bundle.manifest["provenance"]
    if not bundle.demo or provenance.get("data", {}).get("layout") != "simulated":
        raise ConfigError(f"{path} was not trained on simulated people; export it again from its run")
    name, seed = bundle.task.name, int(provenance["seed"])
    fitted, judged, windows = PEOPLE[name]
    everyone = simulated_cohort(bundle.task, subjects=SIZE[name][0], windows=windows, seed=seed)
    people = set(provenance["split"]["train_subjects"][:fitted])
    cohorts = [
        replace(everyone, trials=[trial for trial in everyone.trials if trial.subject in people]),
        simulated_cohort(bundle.task, subjects=judged, windows=windows, seed=seed + HELD_OUT_SEED[name]),
    ]
    tables = [cut_windows(cohort, bundle.task) for cohort in cohorts]
    stores = [build_clips(t, cache, c.problems, workers=workers) for t, c in zip(tables, cohorts)]
    return with_novelty(bundle, fit_windows(bundle.task, *tables, (stores[0], stores[1])))


def with_novelty(bundle: Bundle, densities: Mapping[str, Novelty]) -> Bundle:
    """Write `bundle` again with these densities; the networks stay as they are."""
    manifest = {**bundle.manifest, "novelty": {"file": FILE}}
    return write_bundle(bundle.path, manifest, {**_read(bundle), FILE: save_novelty(densities)}, overwrite=True)


def _read(bundle: Bundle) -> dict[str, bytes]:
    """The files, in memory: `write_bundle` replaces the folder they lie in."""
    return {name: file.read() for name, file in bundle.files.items() if name != FILE}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Add novelty densities to demo bundles.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="clips; default: $JMT_EDGE_CACHE")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args(arguments)
    for path in given.bundles:
        print(add_to_demo(path, cache=given.cache, workers=given.workers).id)


if __name__ == "__main__":
    main()
