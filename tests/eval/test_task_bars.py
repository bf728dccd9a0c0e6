"""Tasks on the time axis: from a desk's events, or, in a record that is played back, from what was written and read."""

import dataclasses

from tml_jax.background.tasks import TaskEvent
from tml_jax.data.record import BACKGROUND, MODEL, TASK, Conversation, Text
from tml_jax.eval.baselines import as_recorded
from tml_jax.eval.conversation import write_conversation
from tml_jax.eval.task_bars import task_bars

RECORD = Conversation(
    "tasks",
    6.0,
    texts=(
        Text(MODEL, "3 + 4", 0.5, TASK),
        Text(MODEL, "rain", 0.9, TASK),
        Text(MODEL, "", 1.0, TASK),
        Text(MODEL, "tea", 1.3, TASK),
        Text(MODEL, "#2 tomorrow", 1.7, TASK),
        Text(BACKGROUND, "untagged", 2.0),
        Text(BACKGROUND, "#1. 7", 2.1),
        Text(BACKGROUND, "#2! late", 3.1),
        Text(MODEL, "stop", 4.1, TASK),
        Text(MODEL, "more", 5.1, TASK),
    ),
)


def test_a_record_shows_what_was_written_and_read():
    bars = task_bars(as_recorded(RECORD))
    assert [bar.label for bar in bars] == [
        "1: 3 + 4 → 7",
        "2: rain (refined)",
        "3: tea (cancelled)",
        "2: tomorrow (failed: late)",
        "4: more",
    ]
    assert all(0 < bar.start <= bar.end <= 6.0 for bar in bars)
    assert (round(bars[0].start, 6), bars[0].end) == (0.6, 2.0) and bars[-1].end == 6.0


def test_a_desks_events_count_before_spans():
    asked, ended = TaskEvent("asked", 3, 1, 1, "3 + 4"), TaskEvent("cancelled", 9, 1, 1, "3 + 4")
    happened = {3: (asked,), 9: (ended,)}
    turns = [dataclasses.replace(turn, tasks=happened.get(turn.index, ())) for turn in as_recorded(RECORD)]
    (bar,) = task_bars([dataclasses.replace(turn, given=()) for turn in turns])
    assert bar.label == "1: 3 + 4 (cancelled)" and (round(bar.start, 6), round(bar.end, 6)) == (0.8, 2.0)


def test_the_picture_has_a_row_for_tasks(tmp_path, monkeypatch):
    drawn = []
    from tml_jax.eval import timeline

    draw = timeline._draw_tasks
    monkeypatch.setattr(
        timeline, "_draw_tasks", lambda axes, bars, *rest: drawn.append(bars) or draw(axes, bars, *rest)
    )
    turns = as_recorded(RECORD)
    write_conversation(tmp_path / "with", None, turns)
    assert drawn == [task_bars(turns)]
    lines = (tmp_path / "with" / "micro_turns.jsonl").read_text().splitlines()
    assert '"asked": ["3 + 4"]' in lines[2] and '"#1. 7"]' in lines[10]
    write_conversation(tmp_path / "without", None, [dataclasses.replace(turn, spans=(), given=()) for turn in turns])
    assert len(drawn) == 1
