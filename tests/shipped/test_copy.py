"""The copy that comes with the package: it loads, answers, and is what its card, README and notebooks say of it."""

import itertools
import json
import pathlib

from tml_jax import shipped
from tml_jax.data.record import USER, Conversation, Text
from tml_jax.eval.streaming import stream
from tml_jax.serve.session import Talker
from tml_jax.shipped.make import ABILITIES, CARD, MOST_BYTES, RESULTS
from tml_jax.train.checkpoint import find_checkpoint, read_config

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_copy_is_what_is_said_of_it():
    folder, checkpoint = find_checkpoint(shipped.resolve(shipped.NAME))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= MOST_BYTES
    card, results = (folder / CARD).read_text(), json.loads((folder / RESULTS).read_text())
    assert results["step"] == int(checkpoint.name) and f"checkpoint of step {checkpoint.name}." in card
    (row,) = [line for line in card.splitlines() if line.startswith("| model | ")]
    assert f"| {results['policies']['model']['keyword']['value']:.1%} (" in row
    assert "--checkpoint=shipped " in card and card.count("--checkpoint=") == card.count("--checkpoint=shipped ")
    readme = (ROOT / "README.md").read_text().splitlines()
    assert row in readme
    rows = [line for line in (folder / ABILITIES).read_text().splitlines() if line.startswith("| ")]
    first = next(number for number, line in enumerate(rows) if line.startswith("| ability | figure | target |"))
    figures = list(itertools.takewhile(lambda line: line.count("|") == rows[first].count("|"), rows[first:]))
    assert len(figures) == 27 and set(figures) <= set(readme), sorted(set(figures) - set(readme))
    name = f"{read_config(folder).name}, step {checkpoint.name}: "
    assert name in (ROOT / "notebooks/talk_to_replica.ipynb").read_text(), "what it shows is of another model"


def test_the_copy_answers():
    asked = Conversation("a", 3.0, texts=(Text(USER, "please say the word garden", 0.3),))
    (turns,) = stream(Talker(shipped.NAME), [asked])
    assert "".join(turn.text for turn in turns).split() == ["garden"]
