"""OpenCV with its messages turned off. Every module of the package imports `cv2` from here, never directly.

Importing this module raises InstallError, in one sentence, where OpenCV is missing or does not load.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

from .errors import InstallError, first_line

__all__ = ["cv2", "silence"]

_INSTALL = (
    "run `pip install opencv-python-headless`, or on a Jetson use JetPack's OpenCV in a venv made with "
    "--system-site-packages"
)
_REPAIR = (
    "run `pip install --upgrade opencv-python-headless`, or on a Jetson, whose OpenCV was built against NumPy 1, "
    "`pip install 'numpy<2'`"
)


def silence(module: Any) -> None:
    """Turn OpenCV's log off. `utils.logging` came with 4.13 and `setLogLevel` left with it; 0 is SILENT in both."""
    if hasattr(module, "setLogLevel"):
        module.setLogLevel(0)
    elif hasattr(module, "utils") and hasattr(module.utils, "logging"):
        module.utils.logging.setLogLevel(module.utils.logging.LOG_LEVEL_SILENT)


os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")  # s; 10 s would outlast every watchdog
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(1 << 25))  # a file of 100 bytes may claim a thousand million
_said = io.StringIO()  # NumPy prints a page and a traceback about a module built against its other major version
try:
    with contextlib.redirect_stderr(_said):
        import cv2
except Exception as error:  # ImportError for the most part; an extension module may raise anything
    vars(sys).pop("OpenCV_LOADER", None)  # OpenCV's mark of an import in progress, left behind when it fails
    if isinstance(error, ModuleNotFoundError) and error.name == "cv2":
        raise InstallError(f"OpenCV is not installed; {_INSTALL}") from None
    numpy = f" with NumPy {sys.modules['numpy'].__version__}" if "numpy" in sys.modules else ""
    raise InstallError(f"OpenCV does not load{numpy} ({first_line(error)}); {_REPAIR}") from None
if _said.getvalue():
    sys.stderr.write(_said.getvalue())
silence(cv2)
cv2.setNumThreads(1)  # pictures are small: spreading one over the cores costs more than it gains
