"""Pictures: what was said, shown and decided on one time axis, and the loss over a run."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text as MatplotlibText
from matplotlib.transforms import blended_transform_factory

from tml_jax.background.tasks import State
from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE
from tml_jax.data.record import BACKGROUND, MODEL, OTHER, USER, Cue, Text, Word
from tml_jax.eval.task_bars import Bar, task_bars

if TYPE_CHECKING:
    from tml_jax.serve.words import MicroTurn

DPI = 100
INK, FAINT = "#2b2f36", "#9aa1ab"
COLOURS = {USER: "#3b6ea5", OTHER: "#7f6a9e", MODEL: "#c05f2e", BACKGROUND: "#5d7f4f"}
CUE_COLOURS = {"respond": "#d9a441", "hold": "#8d96a3", "yield": "#b0526a", "keep": "#5d9c8b"}
TASK_COLOURS = {State.RUNNING: "#d9a441", State.DONE: "#5d7f4f", State.FAILED: "#b0526a"}
_LANE = 0.21  # inches from one line of labels to the next
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.05, 0.25, 0.5, 0.5  # margins, inches
_GAP = 0.13  # inches between rows


@dataclasses.dataclass(frozen=True)
class _Row:
    """One row of the picture: its name, its height in inches, and what fills its axes."""

    name: str
    height: float
    draw: Callable[[Axes], None]


def stagger(spans: Sequence[tuple[float, float]], lanes: int) -> list[int | None]:
    """Puts labels on as few lines as needed, so that none overlap.

    Args:
      spans: (left, right) of each label, in order of `left`, any unit.
      lanes: lines there are.

    Returns:
      The line of each label, 0 first; None for a label that fits on no line.
    """
    free = [-np.inf] * lanes
    chosen: list[int | None] = []
    for left, right in spans:
        lane = next((lane for lane in range(lanes) if free[lane] <= left), None)
        if lane is not None:
            free[lane] = right
        chosen.append(lane)
    return chosen


def draw_timeline(
    path: str | pathlib.Path,
    micro_turns: Sequence["MicroTurn"],
    user_audio: np.ndarray | None = None,
    frames: Sequence[tuple[float, np.ndarray]] = (),
    texts: Sequence[Text] = (),
    cues: Sequence[Cue] = (),
    words: Sequence[Word] = (),
    title: str = "",
) -> None:
    """Draws a conversation to a PNG of about 1600 × 700 pixels; wider beyond 23 s.

    Everything stands at the time it is heard or seen: the output of micro-turn t in [0.2(t+1), 0.2(t+2)). Rows without
    content are left out. Labels that find no room are counted at the right edge of their row.

    Args:
      path: the file to write.
      micro_turns: what the model put out, from the first.
      user_audio: (n,) float32 at 16 kHz, or None.
      frames: (time in seconds, (rows, columns, 3) uint8) of each video frame.
      texts: typed, background and shown text. The model's own shown text comes from `micro_turns`.
      cues: what was expected.
      words: spoken words; the user's and others' are drawn. The model's come from `micro_turns`.
      title: a line above.

    Raises:
      ValueError: there are no micro-turns.
    """
    if not micro_turns:
        raise ValueError(f"{path}: no micro-turns to draw")
    seconds = MICRO_TURN_SECONDS * len(micro_turns)
    width = float(np.clip(0.7 * seconds, 16, 60))

    heard = np.concatenate([np.zeros(round(MICRO_TURN_SECONDS * OUTPUT_RATE)), *(turn.samples for turn in micro_turns)])
    heard_words = {who: [(word.start, word.text) for word in words if word.speaker == who] for who in (OTHER, USER)}
    said = [(turn.start + MICRO_TURN_SECONDS, turn.text) for turn in micro_turns if turn.text.strip()]
    notes = [(text.time, text.speaker, text.text) for text in texts if text.speaker != MODEL]
    notes += [(turn.start + MICRO_TURN_SECONDS, MODEL, turn.display) for turn in micro_turns if turn.display.strip()]
    notes.sort(key=lambda note: note[0])

    rows = []
    if frames:
        rows.append(_Row("video", 0.85, lambda axes: _draw_frames(axes, frames)))
    rows += [_word_row(spoken, COLOURS[who]) for who, spoken in heard_words.items() if spoken]
    if user_audio is not None:
        rows.append(_Row("user", 0.9, lambda axes: _draw_wave(axes, user_audio, INPUT_RATE, COLOURS[USER])))
    if said:
        rows.append(_word_row(said, COLOURS[MODEL]))
    rows.append(_Row("model", 0.9, lambda axes: _draw_wave(axes, heard, OUTPUT_RATE, COLOURS[MODEL])))
    rows.append(_Row("gate", 0.26, lambda axes: _draw_gates(axes, micro_turns)))
    if cues:
        cue_lanes = _cue_lanes(cues, DPI * (width - _LEFT - _RIGHT) / seconds)
        rows.append(_Row("expected", 0.26 * (1 + max(cue_lanes)), lambda axes: _draw_cues(axes, cues, cue_lanes)))
    if bars := task_bars(micro_turns):
        task_lanes = _task_lanes(bars, DPI * (width - _LEFT - _RIGHT) / seconds)
        rows.append(_Row("tasks", 0.26 * (1 + max(task_lanes)), lambda axes: _draw_tasks(axes, bars, task_lanes)))
    if notes:
        lanes = min(len(notes), 3)
        rows.append(_Row("text", _LANE * lanes, lambda axes: _draw_notes(axes, notes, lanes)))

    # The two waveforms take what is left of seven inches.
    waves = [row for row in rows if row.name in ("user", "model")]
    height = _TOP + _BOTTOM + sum(row.height for row in rows) + _GAP * (len(rows) - 1)
    extra = float(np.clip((7 - height) / len(waves), 0, 0.8))
    rows = [dataclasses.replace(row, height=row.height + (extra if row in waves else 0)) for row in rows]
    total = height + extra * len(waves)

    figure = Figure(figsize=(width, total), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(_LEFT / width, 1 - 0.3 / total, title, color=INK, fontsize=12, va="center", parse_math=False)
    top = total - _TOP
    for row in rows:
        box = (_LEFT / width, (top - row.height) / total, 1 - (_LEFT + _RIGHT) / width, row.height / total)
        axes = figure.add_axes(box, xlim=(0, seconds), ylim=(0, 1))
        last = row is rows[-1]
        _dress(axes, row.name, last)
        row.draw(axes)
        top -= row.height + _GAP
    figure.savefig(path, dpi=DPI)


def _dress(axes: Axes, name: str, last: bool) -> None:
    """Name at the left, whole seconds as faint lines, time below the last row."""
    axes.spines[:].set_visible(False)
    axes.patch.set_alpha(0)
    axes.set_yticks([])
    start, end = axes.get_xlim()
    step = next(step for step in (1, 2, 5, 10, 30, 60, 300, 3600) if (end - start) / step <= 30 or step == 3600)
    axes.set_xticks(np.arange(0, end + 1e-6, step))
    axes.grid(axis="x", color="#e6e8eb", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=0, colors=INK, labelsize=9, labelbottom=last)
    if last:
        axes.set_xlabel("seconds", color=INK, fontsize=9)
    axes.annotate(
        name, (0, 0.5), (-10, 0), xycoords="axes fraction", textcoords="offset points", ha="right", va="center",
        fontsize=10, color=INK,
    )  # fmt: skip


def _draw_frames(axes: Axes, frames: Sequence[tuple[float, np.ndarray]]) -> None:
    """Thumbnails, the left edge of each at its time; those that would overlap the one before are left out."""
    end = axes.get_xlim()[1]
    free = -np.inf
    for time, pixels in frames:
        width = axes.bbox.height * pixels.shape[1] / pixels.shape[0] / _pixels_per_second(axes)
        if time >= free and time < end:
            axes.imshow(pixels, extent=(time, time + width, 0, 1), aspect="auto", interpolation="bilinear", zorder=2)
            free = time + 1.05 * width
    axes.set(xlim=(0, end), ylim=(0, 1))


def _draw_wave(axes: Axes, samples: np.ndarray, rate: int, colour: str) -> None:
    """The envelope between least and greatest sample of each pixel, scaled to the loudest."""
    end = axes.get_xlim()[1]
    samples = np.asarray(samples, np.float32)[: round(end * rate)]
    columns = max(1, round(axes.bbox.width))
    edges = np.linspace(0, end * rate, columns + 1).astype(int)
    edges = np.unique(np.minimum(edges, len(samples)))[:-1]
    if not edges.size:
        return
    loudest = max(float(np.abs(samples).max()), 1e-3)
    low, high = (part.reduceat(samples, edges) / loudest for part in (np.minimum, np.maximum))
    axes.set_ylim(-1.05, 1.05)
    axes.axhline(0, color=colour, lw=0.6, alpha=0.5)
    axes.fill_between((edges + 0.5 * np.diff(edges, append=len(samples))) / rate, low, high, color=colour, lw=0.3)


def _word_row(words: Sequence[tuple[float, str]], colour: str) -> _Row:
    """Words at their times on staggered lines, each with a thin stem down to the row below."""
    lanes = min(len(words), 3)

    def draw(axes: Axes) -> None:
        _settle(axes, [_label(axes, time, text, colour) for time, text in words], lanes, stems=colour)

    return _Row("", _LANE * lanes, draw)


def _draw_notes(axes: Axes, notes: Sequence[tuple[float, str, str]], lanes: int) -> None:
    names = {USER: "typed", BACKGROUND: "background", MODEL: "shown"}
    artists = [_label(axes, time, f"▸ {names[speaker]}: {text}", COLOURS[speaker]) for time, speaker, text in notes]
    _settle(axes, artists, lanes)


def _label(axes: Axes, time: float, text: str, colour: str) -> MatplotlibText:
    place = blended_transform_factory(axes.transData, axes.transAxes)
    text = " ".join(text.split())
    shortened = text if len(text) <= 90 else f"{text[:89]}…"
    label = axes.text(time, 0, shortened, color=colour, fontsize=9.5, va="center", transform=place, parse_math=False)
    label.set_bbox({"facecolor": "white", "lw": 0, "pad": 0.6})  # keeps lines off the letters
    return label


def _settle(axes: Axes, artists: Sequence[MatplotlibText], lanes: int, stems: str | None = None) -> None:
    """Moves labels to lines where they do not overlap, lowest first if they have stems; counts those without room."""
    edge = axes.get_figure().bbox.width - 4
    spans = []
    for artist in artists:
        box = artist.get_window_extent()
        shift = min(0.0, edge - box.x1)  # a label at the end is pulled back into the picture
        if shift:
            artist.set_x(axes.transData.inverted().transform((box.x0 + shift, 0))[0])
        spans.append((box.x0 + shift, box.x1 + shift + 7))
    left_out = 0
    order = np.argsort([left for left, _ in spans], kind="stable")
    for number, lane in zip(order, stagger([spans[number] for number in order], lanes)):
        if lane is None:
            artists[number].remove()
            left_out += 1
            continue
        height = (lane + 0.5) / lanes if stems else 1 - (lane + 0.5) / lanes
        artists[number].set_y(height)
        if stems and lane:
            axes.axvline(artists[number].get_position()[0], 0, height - 0.35 / lanes, color=stems, lw=0.6, alpha=0.45)
    if left_out:
        axes.text(
            1, 1, f"{left_out} more", transform=axes.transAxes, ha="right", va="bottom", fontsize=8, color=FAINT
        )  # fmt: skip


def _draw_gates(axes: Axes, micro_turns: Sequence["MicroTurn"]) -> None:
    """One cell a micro-turn, at the time it is heard."""
    for speaks, colour in ((True, COLOURS[MODEL]), (False, "#eceef0")):
        cells = [
            (turn.start + MICRO_TURN_SECONDS, MICRO_TURN_SECONDS - 1 / _pixels_per_second(axes))
            for turn in micro_turns
            if (turn.gate == "SPEAK") == speaks
        ]
        axes.broken_barh(cells, (0.1, 0.8), facecolors=colour, lw=0)
    axes.set_xlim(0, MICRO_TURN_SECONDS * len(micro_turns))
    speaks = np.asarray([turn.gate == "SPEAK" for turn in micro_turns])
    edges = np.concatenate([[0], 1 + np.flatnonzero(np.diff(speaks)), [len(speaks)]])
    for first, end in zip(edges[:-1], edges[1:]):
        shown = min(end, len(speaks) - 1)  # the last micro-turn is heard after the end of the picture
        label = axes.text(
            MICRO_TURN_SECONDS * (first + shown + 2) / 2, 0.47, "SPEAK" if speaks[first] else "LISTEN", fontsize=8,
            color="white" if speaks[first] else FAINT, ha="center", va="center",
        )  # fmt: skip
        if label.get_window_extent().width > (shown - first) * MICRO_TURN_SECONDS * _pixels_per_second(axes):
            label.remove()


def _pixels_per_second(axes: Axes) -> float:
    start, end = axes.get_xlim()
    return axes.bbox.width / (end - start)


def _cue_lanes(cues: Sequence[Cue], pixels_per_second: float) -> list[int]:
    """A line for each cue, in their order, so that neither spans nor the names of their kinds overlap."""
    order = sorted(range(len(cues)), key=lambda number: cues[number].start)
    room = [
        max(cues[number].end - cues[number].start, (7 * len(cues[number].kind) + 14) / pixels_per_second)
        for number in order
    ]
    lanes = stagger([(cues[number].start, cues[number].start + width) for number, width in zip(order, room)], len(cues))
    return [lane or 0 for _, lane in sorted(zip(order, lanes))]


def _task_lanes(bars: Sequence[Bar], pixels_per_second: float) -> list[int]:
    """A line for each task, so that neither bars nor labels overlap."""
    spans = [
        (bar.start, bar.start + max(bar.end - bar.start, (7 * len(bar.label) + 14) / pixels_per_second)) for bar in bars
    ]
    return [lane or 0 for lane in stagger(spans, len(bars))]


def _draw_tasks(axes: Axes, bars: Sequence[Bar], lanes: Sequence[int]) -> None:
    """From asking to the end, with what was asked and found; those that ended otherwise are grey."""
    height = 1 / (1 + max(lanes))
    for bar, lane in zip(bars, lanes):
        bottom = 1 - (lane + 1) * height
        colour = TASK_COLOURS.get(bar.state, FAINT)
        span = [(bar.start, max(bar.end - bar.start, 3 / _pixels_per_second(axes)))]
        axes.broken_barh(span, (bottom + 0.1 * height, 0.8 * height), facecolors=colour, alpha=0.35, lw=0)
        axes.annotate(
            bar.label, (bar.start, bottom + 0.5 * height), (5, -0.5), textcoords="offset points", va="center",
            fontsize=8.5, color=INK, parse_math=False, annotation_clip=False,
        )  # fmt: skip


def _draw_cues(axes: Axes, cues: Sequence[Cue], lanes: Sequence[int]) -> None:
    """Spans with their kind, and the words due where they fit."""
    height = 1 / (1 + max(lanes))
    end = axes.get_xlim()[1]
    for cue, lane in zip(cues, lanes):
        colour = CUE_COLOURS.get(cue.kind, FAINT)
        bottom = 1 - (lane + 1) * height
        bar = (bottom + 0.1 * height, 0.8 * height)
        axes.broken_barh([(cue.start, max(cue.end - cue.start, 0.02))], bar, facecolors=colour, alpha=0.3, lw=0)
        axes.broken_barh([(cue.start, 3 / _pixels_per_second(axes))], bar, facecolors=colour, lw=0)
        room = (min(cue.end, end) - cue.start) * _pixels_per_second(axes) - 10
        for text in ([f"{cue.kind}: {cue.text}"] if cue.text else []) + [cue.kind]:
            label = axes.annotate(
                text, (cue.start, bottom + 0.5 * height), (5, -0.5), textcoords="offset points", va="center",
                fontsize=8.5, color=INK, parse_math=False,
            )  # fmt: skip
            if text == cue.kind or label.get_window_extent().width <= room:
                break
            label.remove()
