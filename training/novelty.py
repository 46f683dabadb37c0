"""Novelty densities of a bundle: what the features of its training people look like, and a limit from other people.

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

from ..engine.backends import open_engine
from ..engine.bundle import Bundle, load_bundle, write_bundle
from ..engine.novelty import FILE, MIN_CLIPS, Novelty, describe, fit, save_novelty
from ..errors import ConfigError
from ..tasks import Task
from .clips import ClipStore, build_clips, default_cache
from .data import cut_windows
from .streams import simulated_cohort

F32 = NDArray[np.float32]
Features = Mapping[str, F32]  # modality -> (N, d)
CHUNK = 64  # clips in one call of a backbone
# training people, people of the limit, windows of each; a sequence's windows share their clips
PEOPLE = {"pain": (27, 16, 8), "affect": (16, 12, 4), "trimodal": (20, 12, 6)}
HELD_OUT_SEED = {"pain": 2, "affect": 1, "trimodal": 1}  # beside the training's: other people


def fit_all(training: Features, held_out: Features, people: int) -> dict[str, Novelty]:
    """The density of each modality of which both sides have enough clips, from descriptions of them (N, D)."""
    enough = [n for n in training if min(len(training[n]), len(held_out.get(n, ()))) >= MIN_CLIPS]
    return {name: fit(training[name], held_out[name], people) for name in enough if people > 1}


def described(name: str, store: ClipStore, features: F32, rows: NDArray[np.int64]) -> F32:
    """Descriptions (N, D) of the usable clips among `rows` of a store whose features are (all clips, d)."""
    rows = np.unique(rows[rows >= 0])
    rows = rows[store.present[rows]]
    parts = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    return np.concatenate([describe(name, store.load(part), features[part]) for part in parts] or [features[:0]])


def simulated_features(
    bundle: Bundle, *, subjects: int, seed: int, windows: int, only: Sequence[str] = (), cache: Path, workers: int = 1
) -> dict[str, F32]:
    """Descriptions of the usable clips of simulated people, by the bundle's own backbones. only: these people alone."""
    task: Task = bundle.task
    cohort = simulated_cohort(task, subjects=subjects, windows=windows, seed=seed)
    if only:
        cohort = replace(cohort, trials=[r for r in cohort.trials if r.subject in set(only)])
    cut = cut_windows(cohort, task)
    stores = build_clips(cut, cache, cohort.problems, workers=workers)
    engine = open_engine(bundle, "onnxruntime", workers)
    found = {}
    try:
        for name, store in stores.items():
            rows = np.flatnonzero(store.present)
            features = np.zeros((len(store.data), task.dim), np.float32)
            for i in range(0, len(rows), CHUNK):
                features[rows[i : i + CHUNK]] = engine.backbones({name: store.load(rows[i : i + CHUNK])})[name]
            found[name] = described(name, store, features, rows)
    finally:
        engine.close()
    return found


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
    training = simulated_features(
        bundle, subjects=SIZE[name][0], seed=seed, windows=windows, cache=cache, workers=workers,
        only=provenance["split"]["train_subjects"][:fitted],
    )  # fmt: skip
    held_out = simulated_features(
        bundle, subjects=judged, seed=seed + HELD_OUT_SEED[name], windows=windows, cache=cache, workers=workers
    )
    return with_novelty(bundle, fit_all(training, held_out, judged))


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
