"""How long, loud, fast and large things are in generated scenes: a grid of values for each split, none in two.

But for development, which has those of training.
"""

import dataclasses

import numpy as np

TRAIN, DEVELOPMENT, HELD_OUT, EXTRAPOLATION = "train", "development", "held_out", "extrapolation"
OTHER_VOICES = "other_voices"


def _grid(low: float, high: float, step: float, half: bool) -> tuple[float, ...]:
    """Values from `low` to `high`, or those half-way between them."""
    values = np.arange(low + (step / 2 if half else 0.0), high + step * 0.01, step)
    return tuple(round(float(value), 4) for value in values)


@dataclasses.dataclass(frozen=True)
class Grids:
    """Values that a split draws its times (seconds), sizes, levels and speeds from.

    No value occurs in two splits, but that development has those of training, and OTHER_VOICES the held-out ones.

    Attributes:
      lead: silence before the user begins.
      reply: from the end of the request to the reply.
      typed_reply: the same for typed requests, whose text may take two micro-turns to come in.
      pause: pause within a sentence.
      cue_reply: from the end of the cue word to the reply.
      event_reply: from the frame that shows the event to the reply.
      event: from the end of the request to that frame.
      stay: how long an object is seen that the model tells to be gone.
      period: from one repetition of an action to the next.
      break_in: from the start of the model's counting to the user's breaking in.
      beat: pause of a story in which the model shows that it listens.
      gap: from the end of one word to the next where the model repeats each.
      beside: dB of somebody else in the room relative to the user.
      television: dB of a television relative to the user.
      gain: dB of speech in the microphone.
      faint_noise: how many dB noise lies below speech in scenes that are near clean.
      noise: the same in the others.
      rt60: of a room.
      echo: dB of the model's own voice in the microphone relative to its own level.
      echo_delay: after which it is heard there.
      tail: silence after the last event.
      speed: of the user's speech.
      size: radius of an object in pixels.
    """

    lead: tuple[float, ...]
    reply: tuple[float, ...]
    typed_reply: tuple[float, ...]
    pause: tuple[float, ...]
    cue_reply: tuple[float, ...]
    event_reply: tuple[float, ...]
    event: tuple[float, ...]
    stay: tuple[float, ...]
    period: tuple[float, ...]
    break_in: tuple[float, ...]
    beat: tuple[float, ...]
    gap: tuple[float, ...]
    beside: tuple[float, ...]
    television: tuple[float, ...]
    gain: tuple[float, ...]
    faint_noise: tuple[float, ...]
    noise: tuple[float, ...]
    rt60: tuple[float, ...]
    echo: tuple[float, ...]
    echo_delay: tuple[float, ...]
    tail: tuple[float, ...]
    speed: tuple[float, ...]
    size: tuple[float, ...]


def _grids(half: bool) -> Grids:
    return Grids(
        lead=_grid(0.1, 0.6, 0.05, half),
        reply=_grid(0.25, 0.45, 0.02, half),
        typed_reply=_grid(0.45, 0.65, 0.02, half),
        pause=_grid(0.5, 1.6, 0.1, half),
        cue_reply=_grid(0.2, 0.4, 0.02, half),
        event_reply=_grid(0.3, 0.5, 0.02, half),
        event=_grid(0.6, 2.4, 0.1, half),
        stay=_grid(1.4, 2.2, 0.1, half),
        period=_grid(0.8, 1.1, 0.1, half),
        break_in=_grid(1.0, 2.8, 0.1, half),
        beat=_grid(0.95, 1.25, 0.1, half),
        gap=_grid(0.35, 0.6, 0.05, half),
        beside=_grid(-9.0, -3.0, 1.0, half),
        television=_grid(-20.0, -12.0, 1.0, half),
        gain=_grid(-6.0, 6.0, 0.5, half),
        faint_noise=_grid(35.0, 50.0, 1.0, half),
        noise=_grid(15.0, 50.0, 1.0, half),
        rt60=_grid(0.1, 0.5, 0.05, half),
        echo=_grid(-35.0, -20.0, 1.0, half),
        echo_delay=_grid(0.02, 0.2, 0.02, half),
        tail=_grid(0.6, 1.0, 0.1, half),
        speed=_grid(0.9, 1.1, 0.04, half),
        size=_grid(5.0, 10.0, 1.0, half),
    )


# Longer waits, faster speech, more noise and larger rooms than in training; all other times are between the held-out
# ones.
_BEYOND = dict(
    pause=_grid(2.0, 3.0, 0.25, False),
    event=_grid(3.0, 5.0, 0.5, False),
    stay=_grid(2.6, 3.4, 0.2, False),
    beat=_grid(1.6, 2.2, 0.2, False),
    period=_grid(0.7, 1.3, 0.6, False),
    speed=_grid(1.2, 1.4, 0.05, False),
    television=_grid(-10.0, -8.0, 0.75, False),
    noise=_grid(5.0, 12.0, 0.75, False),
    rt60=_grid(0.6, 0.9, 0.1, False),
    echo=_grid(-18.0, -12.0, 1.5, False),
)


def _shifted(grids: Grids) -> Grids:
    """The same grids, a quarter of a step on, so that no value is shared; what `_BEYOND` names is beyond training."""
    fields = {}
    for field in dataclasses.fields(Grids):
        values = getattr(grids, field.name)
        step = (values[1] - values[0]) / 4
        fields[field.name] = _BEYOND.get(field.name) or tuple(round(value - step, 4) for value in values)
    return Grids(**fields)


_NEAR, _BETWEEN = _grids(False), _grids(True)
GRIDS = {
    TRAIN: _NEAR,
    DEVELOPMENT: _NEAR,
    HELD_OUT: _BETWEEN,
    OTHER_VOICES: _BETWEEN,
    EXTRAPOLATION: _shifted(_BETWEEN),
}
