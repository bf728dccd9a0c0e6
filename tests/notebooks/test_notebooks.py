"""Notebooks: well-formed, light, and, with the marker `notebooks`, run from first cell to last."""

import ast
import importlib
import pathlib
import re

import nbformat
import pytest
from execute import FOLDER, MOST_BYTES, execute, light, parameter_cell

from tml_jax.scenes.families import FAMILIES

NAMES = [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]


def load(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(name):
    """The Python of a notebook; shell lines of the installation left out."""
    sources = [cell.source for cell in load(name).cells if cell.cell_type == "code"]
    return "\n".join(re.sub(r"^( *)[!%].*$", r"\1pass", source, flags=re.MULTILINE) for source in sources)


def test_there_are_three():
    assert NAMES == ["inside_a_micro_turn", "talk_to_replica", "train_replica"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_valid_and_light_and_of_no_machine(name):
    nbformat.validate(load(name))
    text = (FOLDER / f"{name}.ipynb").read_text()
    assert len(text.encode()) < MOST_BYTES
    assert not re.search(r"/(work|tmp|home|root|Users|content)/|site-packages", text)
    assert '"output_type": "error"' not in text


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_installation_and_plain_parameters(name):
    cells = load(name).cells
    [installation] = [i for i, cell in enumerate(cells) if "installation" in cell.metadata.get("tags", ())]
    assert installation == 1 and 'find_spec("tml_jax") is None' in cells[1].source
    assert all(cell.cell_type == "markdown" for cell in (*cells[:1], *cells[2 : parameter_cell(load(name))]))
    for statement in ast.parse(cells[parameter_cell(load(name))].source).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_imports_of_the_project_exists(name):
    imports = [node for node in ast.walk(ast.parse(code(name))) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module.split(".")[0] in ("tml_jax", "launch", "configs")]
    assert ours
    for node in ours:
        module = importlib.import_module(node.module)
        for alias in node.names:
            if not hasattr(module, alias.name):
                importlib.import_module(f"{node.module}.{alias.name}")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
    """A folder in which the first notebook has trained."""
    folder = tmp_path_factory.mktemp("notebooks")
    generate = {"scenes": 6, "held_out": 2}
    settings = f"preset, steps, conversations = 'tiny', 2, {generate}\nrun_dir, data_dir = 'runs/tiny', 'data/tiny'"
    made = execute("train_replica", settings, folder)
    assert "model, audio muted" in str(made.cells) and (folder / "runs/tiny/curves.png").exists()
    assert len(nbformat.writes(light(made))) < MOST_BYTES
    return folder


@pytest.mark.notebooks
def test_talking_runs_from_first_cell_to_last_with_a_server_and_its_client(trained):
    made = execute("talk_to_replica", "checkpoint, patience = 'runs/tiny', 2.0", trained)
    assert "listening at ws://127.0.0.1" in str(made.cells) and "of speech came back" in str(made.cells)


@pytest.mark.notebooks
@pytest.mark.parametrize("number", [0, list(FAMILIES).index("visual")])  # with a reply; with frames
def test_looking_inside_runs_from_first_cell_to_last(trained, number):
    made = execute("inside_a_micro_turn", f"checkpoint, number = 'runs/tiny', {number}", trained)
    assert "AUDIO_IN   50 ms of what it hears" in str(made.cells)
