"""The feature cache: a frozen backbone runs once over every clip, so that epochs of a fusion take seconds.

A file is named by its key: the backbone's weights, the content of the clips, the augmentation and the code. Features of
other weights, data or preprocessing are never read. The first of the K variants is the clip itself.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .clips import ClipStore, Progress, silent
from .keys import Key, code, weights_hash, write
from .locks import lock
from .recipes import Augment
from .sets import hash_seed, vary

CHUNK = 64  # clips between two updates of the progress


def feature_key(backbone: nn.Module, store: ClipStore, augment: Augment | None) -> Key:
    """Independent of the device: CPU and GPU give the same features within rounding."""
    # a single variant is the clip itself whatever the augmentation, so that evaluation finds the same file
    varied = asdict(augment) if augment and augment.variants > 1 else None
    options = {
        k: v for k, v in vars(backbone).items() if isinstance(v, (bool, int, str)) and k[0] != "_" and k != "training"
    }
    return Key({
        "weights": weights_hash(backbone), "clips": store.content, "modality": asdict(store.modality),
        "augment": varied, "options": options, "code": code(),
    })  # fmt: skip


def extract(
    backbone: nn.Module,
    store: ClipStore,
    cache: Path,
    *,
    augment: Augment | None = None,
    device: str = "cpu",
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """(K, N, d) features of all clips, read from the cache or computed; an interrupted run loses at most one chunk."""
    name = store.modality.name
    variants = augment.variants if augment else 1
    count = len(store.data)
    file = cache / "features" / f"{name}-{feature_key(backbone, store, augment).digest}.npy"
    mark = file.with_suffix(".done")
    backbone = backbone.to(device).eval()
    with lock(file.with_suffix(".lock")), torch.inference_mode():
        dim = backbone(torch.from_numpy(store.load(np.arange(min(1, count)))).to(device)).shape[-1]
        shape = (variants, count, dim)
        if file.is_file() and np.load(file, mmap_mode="r").shape == shape:
            features = np.lib.format.open_memmap(file, mode="r+")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            mark.unlink(missing_ok=True)
            features = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        work = [(k, i) for k in range(variants) for i in range(0, count, CHUNK)]
        done = int(mark.read_text()) if mark.is_file() else 0
        for number, (k, i) in enumerate(work[done:], done + 1):
            index = np.arange(i, min(i + CHUNK, count))
            rng = np.random.default_rng(hash_seed(k, i)) if k else None
            clips = vary(store.data[index], store.modality, augment, rng)
            features[k, index] = backbone(torch.from_numpy(clips).to(device)).float().cpu().numpy()
            features.flush()
            write(mark, str(number))
            progress(f"{name} features", number, len(work))
    return np.asarray(features)
