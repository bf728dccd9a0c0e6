"""Runs a notebook with other parameters than it has, and can keep its outputs, made light.

  PYTHONPATH=. python tests/notebooks/execute.py talk_to_replica "checkpoint = 'runs/replica'"

executes the notebook in the working directory and writes it back with what its cells put out: pictures in few colours,
sound left out.
"""

import base64
import io
import pathlib
import sys

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
MOST_BYTES = 300_000  # of a notebook
_WIDEST = 900  # pixels of a kept picture


def parameter_cell(notebook: nbformat.NotebookNode) -> int:
    """Number of the one cell that is tagged `parameters`."""
    [number] = [i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    return number


def execute(name: str, parameters: str, folder: pathlib.Path) -> nbformat.NotebookNode:
    """Runs a notebook from its first cell to its last.

    Args:
      name: of the notebook, without ending.
      parameters: Python code to run after its parameter cell.
      folder: working directory.

    Returns:
      The notebook with its outputs, and without the code that was put in.
    """
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    injected = parameter_cell(notebook) + 1
    notebook.cells.insert(injected, nbformat.v4.new_code_cell(parameters))
    client = NotebookClient(
        notebook,
        timeout=3600,
        startup_timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    del notebook.cells[injected]
    return notebook


def light(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with small pictures, and without sound, progress on stderr, times and counts of execution."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr" and not _is_sound(output)]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = None
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _small(output.data["image/png"])
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def _is_sound(output: nbformat.NotebookNode) -> bool:
    return "<audio" in output.get("data", {}).get("text/html", "")


def _small(png: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.thumbnail((_WIDEST, _WIDEST))
    small = io.BytesIO()
    picture.quantize(48).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


if __name__ == "__main__":
    name, parameters = sys.argv[1:]
    nbformat.write(light(execute(name, parameters, pathlib.Path.cwd())), FOLDER / f"{name}.ipynb")
