"""The feature cache: a frozen backbone runs once over every clip; fusion epochs then take seconds.

A file is named by a hash of the backbone's weights, the clips it ran on and the augmentation, so features of other
weights, data or preprocessing are never read. The first of the K variants is the clip itself.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .clips import ClipStore, Progress
from .locks import lock
from .recipes import Augment
from .sets import hash_seed, vary

CHUNK = 64  # clips between two marks of progress


def weights_hash(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + str(tuple(value.shape)).encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def feature_key(backbone: nn.Module, store: ClipStore, augment: Augment | None) -> str:
    # a single variant is the clip itself, however training varies clips: evaluation finds the same file
    varied = asdict(augment) if augment and augment.variants > 1 else None
    what = [weights_hash(backbone), store.key, asdict(store.modality), varied]
    options = {
        k: v for k, v in vars(backbone).items() if isinstance(v, (bool, int, str)) and k[0] != "_" and k != "training"
    }
    return hashlib.sha256(json.dumps([*what, options], sort_keys=True, default=str).encode()).hexdigest()[:20]


def extract(
    backbone: nn.Module,
    store: ClipStore,
    cache: Path,
    *,
    augment: Augment | None = None,
    device: str = "cpu",
    progress: Progress = lambda stage, done, total: None,
) -> NDArray[np.float32]:
    """(K, N, d) features of all clips, from the cache or computed into it; a kill loses at most one chunk."""
    name = store.modality.name
    variants = augment.variants if augment else 1
    count = len(store.data)
    file = cache / "features" / f"{name}-{feature_key(backbone, store, augment)}.npy"
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
            mark.write_text(str(number))
            progress(f"{name} features", number, len(work))
    return np.asarray(features)
