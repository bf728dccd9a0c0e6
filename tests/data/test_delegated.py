"""Tasks for the background in training data: written where they are asked, read by serving as they were written."""

import dataclasses

import msgpack
import pytest
from small import small_config
from synthetic import tokenizer

from tml_jax.data.layout import control_token, layout
from tml_jax.data.record import BACKGROUND, MODEL, TASK, USER, Conversation, Text, from_bytes, to_bytes
from tml_jax.eval.baselines import as_recorded
from tml_jax.serve.words import Mouth, Span
from tml_jax.tokens import Control

CONFIG = small_config()
RECORD = Conversation(
    "asks",
    4.0,
    texts=(
        Text(USER, "tell me more", 0.1),
        Text(MODEL, "@5 more about a blue box", 0.9, TASK),
        Text(MODEL, "now", 1.0),
        Text(BACKGROUND, "#1. the box is here", 2.0),
    ),
)


def test_a_task_stands_between_its_marks_where_it_is_asked():
    plan = layout(RECORD, tokenizer(), CONFIG)
    marks = {control: control_token(control, CONFIG.model) for control in Control}
    out = [token for tokens in plan.text_out for token in tokens]
    first = next(turn for turn, tokens in enumerate(plan.text_out) if tokens)
    assert first == 3  # said in the window of 0.8 s to 1.0 s, so put out in the micro-turn before
    task = tokenizer().encode_words("@5 more about a blue box")
    shown = tokenizer().encode_words("now")
    assert out == [
        marks[Control.DELEGATE],
        *task,
        marks[Control.END],
        marks[Control.DISPLAY],
        *shown,
        marks[Control.END],
    ]


def test_serving_reads_the_task_that_was_laid_out():
    mouth, spans = Mouth(tokenizer(), CONFIG), ()
    for tokens in layout(RECORD, tokenizer(), CONFIG).text_out:
        assert "box" not in "".join(mouth.words(tokens))
        spans += mouth.spans()
    assert spans == (Span("@5 more about a blue box"),)
    played = as_recorded(RECORD)
    assert [span for turn in played for span in turn.spans] == list(spans)
    assert "".join(turn.display for turn in played) == "now"


def test_records_keep_their_tasks_and_older_ones_still_load():
    assert from_bytes(to_bytes(RECORD)).texts == RECORD.texts
    fields = msgpack.unpackb(to_bytes(RECORD))
    older = msgpack.packb({**fields, "texts": [text[:3] for text in fields["texts"]]})
    assert from_bytes(older).texts == tuple(dataclasses.replace(text, kind="") for text in RECORD.texts)


@pytest.mark.parametrize("text", [Text(USER, "x", 0.0, TASK), Text(MODEL, "x", 0.0, "note")])
def test_kinds_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="kind must be empty, or task of model"):
        Conversation("bad", 1.0, texts=(text,))
