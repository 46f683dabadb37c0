"""Runs a notebook's cells in order, without Jupyter: `python scripts/run_notebook.py NOTEBOOK [--write]`.

A test runs the notebook of `examples/` with it, and `--write` keeps in the file what its cells print and draw. nbclient
would bring a kernel, ZeroMQ and twenty packages for a file of a few cells. Of IPython's own syntax it knows lines that
begin with `!`, and their continuations.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def run(notebook: dict[str, Any], folder: Path) -> list[list[dict[str, Any]]]:
    """The outputs of each code cell, run in `folder`. Raises what they raise; RuntimeError for a `!` line."""
    before, path = Path.cwd(), os.environ["PATH"]
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{path}"  # `jmt-edge` of this environment
    names: dict[str, Any] = {"__name__": "__main__"}
    os.chdir(folder)
    try:
        return [_cell("".join(c["source"]), names) for c in notebook["cells"] if c["cell_type"] == "code"]
    finally:
        os.chdir(before)
        os.environ["PATH"] = path


def _cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    code = re.sub(r"^!((?:.*\\\n)*.*)$", lambda line: f"__shell__({line[1]!r})", source, flags=re.M)
    names["__shell__"] = _shell
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(ast.parse(code), "<cell>", "exec"), names)
    text = said.getvalue()
    outputs: list[dict[str, Any]] = []
    if text:
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    return outputs + _figures()


def _shell(line: str) -> None:
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(f"`{line}` ended with {done.returncode}: {done.stdout[-2000:]}")


def _figures() -> list[dict[str, Any]]:
    plt = sys.modules.get("matplotlib.pyplot")
    outputs = []
    for number in plt.get_fignums() if plt else ():
        png = io.BytesIO()
        plt.figure(number).savefig(png, format="png")
        data = {"image/png": base64.b64encode(png.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
        plt.close(number)
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--write", action="store_true", help="keep the outputs in the file")
    given = parser.parse_args()
    notebook = json.loads(given.notebook.read_text())
    with tempfile.TemporaryDirectory() as folder:
        found = run(notebook, Path(folder))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, outputs) in enumerate(zip(cells, found), 1):
        cell["execution_count"], cell["outputs"] = number, outputs
        print("".join("".join(o.get("text", "[figure]\n")) for o in outputs), end="")
    if given.write:
        given.notebook.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
