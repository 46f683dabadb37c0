"""The Joint Multimodal Transformer at the edge. A research prototype; not for clinical use."""

import os

__version__ = "0.1.0"

# In a checkout `kernels`, `calibration` and `training` lie beside this package, not in it; an installed copy
# has them inside. This makes `import jmt_edge.kernels` work with only the checkout on PYTHONPATH.
_checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(_checkout, "pyproject.toml")) and os.path.isdir(os.path.join(_checkout, "training")):
    __path__.append(_checkout)
