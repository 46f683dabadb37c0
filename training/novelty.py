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
from ..engine.novelty import FILE, Novelty, fit, save_novelty
from ..errors import ConfigError
from ..tasks import Task
from .clips import build_clips, default_cache
from .data import cut_windows
from .demo import SIZE
from .streams import simulated_cohort

F32 = NDArray[np.float32]
Features = Mapping[str, F32]  # modality -> (N, d)
CHUNK = 64  # clips in one call of a backbone
# training people, people of the limit, windows of each; a sequence's windows share their clips
PEOPLE = {"pain": (27, 16, 8), "affect": (16, 12, 4), "trimodal": (20, 12, 6)}
HELD_OUT_SEED = 1  # beside the training's: other people


def fit_all(training: Features, held_out: Features) -> dict[str, Novelty]:
    """The density of each modality that both sides have features of."""
    return {name: fit(training[name], held_out[name]) for name in training if len(held_out.get(name, ()))}


def simulated_features(
    bundle: Bundle, *, subjects: int, seed: int, windows: int, only: Sequence[str] = (), cache: Path, workers: int = 1
) -> dict[str, F32]:
    """Features of the usable clips of simulated people, by the bundle's own backbones. only: these people alone."""
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
            parts = [
                engine.backbones({name: store.load(rows[i : i + CHUNK])})[name] for i in range(0, len(rows), CHUNK)
            ]
            found[name] = np.concatenate(parts) if parts else np.zeros((0, task.dim), np.float32)
    finally:
        engine.close()
    return found


def add_to_demo(path: Path, *, cache: Path, workers: int = 1) -> Bundle:
    """Fit a demo bundle's densities on the people it was trained on and write the bundle with them.

    Raises ConfigError for a bundle whose people cannot be simulated again.
    """
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
        bundle, subjects=judged, seed=seed + HELD_OUT_SEED, windows=windows, cache=cache, workers=workers
    )
    return with_novelty(bundle, fit_all(training, held_out))


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
