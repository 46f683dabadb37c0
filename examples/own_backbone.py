"""Your own backbone: registered by name, used by a recipe, exported to a bundle and run live.

    python examples/own_backbone.py moments.jmt      # needs the train extra; the weights are random

To train it: docs/howto/add-a-recipe.md.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from jmt_edge.capture import open_source
from jmt_edge.compiler.export import export_bundle
from jmt_edge.engine.backends import open_engine
from jmt_edge.live import Controls, Options, run
from jmt_edge.live.outputs import JsonLines
from jmt_edge.models import BACKBONES, Backbone, build_model
from jmt_edge.training.recipes import load_recipe


class EdaMoments(Backbone):
    """A clip's mean, standard deviation and range in µS: (N, 1, samples) -> (N, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(3, dim)

    def features(self, clip: Tensor) -> Tensor:
        x = clip[:, 0]
        return self.fc(torch.stack([x.mean(-1), x.std(-1, correction=0), x.amax(-1) - x.amin(-1)], -1))


# called with the clip's shape, the width of the first stage, the feature size, and the backbone's own options
BACKBONES["eda_moments"] = lambda shape, width, dim: EdaMoments(dim)


if __name__ == "__main__":
    out = sys.argv[1] if len(sys.argv) > 1 else "moments.jmt"
    task = load_recipe("biovid-jmt", ["backbone.eda=eda_moments"], variant="demo").resolve()
    torch.manual_seed(0)
    model = build_model(task).eval()
    bundle = export_bundle(model, task, out, name="moments", untrained=(*task.names, "fusion"), overwrite=True)
    eda, controls = {"eda": open_source("eda", "sim:seed=3")}, Controls()
    options = Options(duration=10, realtime=False)
    run(bundle, open_engine(bundle), eda, options, [JsonLines(sys.stdout, controls)], controls)
