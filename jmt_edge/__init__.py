"""The Joint Multimodal Transformer at the edge. A research prototype; not for clinical use."""

import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

__version__ = "0.1.0"


class _Checkout:
    """Finds `jmt_edge.kernels`, `.calibration` and `.training` beside this folder, where a checkout keeps them."""

    root = Path(__file__).parents[1]

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, sub = name.rpartition(".")
        if package != __name__ or sub not in ("kernels", "calibration", "training"):
            return None
        folder = cls.root / sub
        return spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])


# an installed copy has the three inside
if not Path(__file__).with_name("training").is_dir():
    sys.meta_path.append(_Checkout)  # type: ignore[arg-type]
