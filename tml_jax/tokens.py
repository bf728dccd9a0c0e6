"""Control tokens and streams: the alphabet of the micro-turn sequence."""

import enum


class Control(enum.IntEnum):
    """Tokens that are not text. Token id = `text_vocab_size` + value, in rows the text vocabulary leaves unused."""

    TIME = 0  # opens every micro-turn: 200 ms have passed
    LISTEN = 1  # gate: this micro-turn makes no sound
    SPEAK = 2  # gate: four audio elements follow
    FROM_USER = 3  # the text that follows was typed by the user
    FROM_BACKGROUND = 4  # the text that follows is a result of the background model
    LOST_AUDIO = 5  # the audio of this micro-turn did not arrive, or not all of it
    DISPLAY = 6  # the text out that follows, up to END, is shown and not spoken
    DELEGATE = 7  # the text out that follows, up to END, is a task for the background model
    END = 8  # closes DISPLAY and DELEGATE


class Stream(enum.IntEnum):
    """What an element (one position of the sequence) is."""

    PADDING = 0
    TIME = 1
    TEXT_IN = 2
    VIDEO = 3
    AUDIO_IN = 4
    TEXT_OUT = 5
    GATE = 6
    AUDIO_OUT = 7


TOKEN_STREAMS = (Stream.TIME, Stream.TEXT_IN, Stream.TEXT_OUT, Stream.GATE)
OUTPUT_TOKEN_STREAMS = (Stream.TEXT_OUT, Stream.GATE)
