"""The output side of a session: the tokens and sound of a micro-turn as words and samples."""

import dataclasses

import numpy as np

from tml_jax.background.tasks import TaskEvent
from tml_jax.config import AUDIO_ELEMENTS, MICRO_TURN_SECONDS, Config
from tml_jax.data.layout import control_token
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.model.stream import MicroTurnOutput
from tml_jax.tokens import Control

MAX_TASK = 200  # tokens of a task; what follows is spoken again, or a span without its end would silence the model
MAX_BYTES = 4  # of a character in UTF-8, so most tokens that one character can be made of


@dataclasses.dataclass(frozen=True)
class Span:
    """A task that the model handed over: its text, and what was wrong with how it was written.

    `problem` is "", `unclosed` (another span began in it, or the session ended), `too_long` (it is cut off), or `stray`
    (an end without a beginning, so no task).
    """

    text: str
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class MicroTurn:
    """What the model put out in one micro-turn. Its sound is heard in the window after.

    Attributes:
      index: number, from 0.
      start: seconds, 0.2 · index: when its input began.
      gate: `SPEAK` or `LISTEN`.
      text: words that begin in its sound, each with its leading space.
      display: text to show, not spoken.
      mel: (20, 80) float32 log10 mel, at its floor when listening.
      samples: (4800,) float32 at 24 kHz.
      compute_seconds: time from input to output.
      elements_in: length of its input.
      elements_out: length of its text, gate and sound.
      spans: tasks handed over, whose end is in this micro-turn.
      tasks: what became of tasks since the last micro-turn, where there is a background.
      given: pieces of results that the model began to read in it, as `background.grammar` writes them.
    """

    index: int
    start: float
    gate: str
    text: str
    display: str
    mel: np.ndarray
    samples: np.ndarray
    compute_seconds: float
    elements_in: int = 0
    elements_out: int = 0
    spans: tuple[Span, ...] = ()
    tasks: tuple[TaskEvent, ...] = ()
    given: tuple[str, ...] = ()


class Mouth:
    """Turns output tokens into spoken and shown text, and tasks; a span, or a character, may go over several turns."""

    def __init__(self, tokenizer: Tokenizer, config: Config) -> None:
        self._tokenizer = tokenizer
        controls = (Control.DISPLAY, Control.DELEGATE, Control.END)
        self._controls = {control_token(control, config.model): control for control in controls}
        self._open = Control.END  # the control token that what is said now stands after
        self._said: list[int] = []  # tokens of characters that are not complete yet
        self._shown: list[int] = []
        self._asked: list[int] = []  # tokens of a task that is not complete yet
        self._spans: list[Span] = []

    def words(self, tokens: list[int]) -> tuple[str, str]:
        """Tokens before the gate of one micro-turn → (spoken, shown)."""
        for token in tokens:
            if token in self._controls:
                self._control(self._controls[token])
            elif token < self._tokenizer.size:
                self._text(token)
        said, self._said = self._complete(self._said)
        shown, self._shown = self._complete(self._shown)
        return said, shown

    def spans(self) -> tuple[Span, ...]:
        """The tasks that have been completed since the last time."""
        spans, self._spans = tuple(self._spans), []
        return spans

    def left(self) -> tuple[Span, ...]:
        """The task that was still being written when the session ended, if there was one."""
        if self._open == Control.DELEGATE:
            self._close("unclosed")
            self._open = Control.END
        return self.spans()

    def _control(self, control: Control) -> None:
        if self._open == Control.DELEGATE:
            self._close("" if control == Control.END else "unclosed")
        elif self._open == Control.END and control == Control.END:
            self._spans.append(Span("", "stray"))
        self._open = control

    def _text(self, token: int) -> None:
        if self._open != Control.DELEGATE:
            (self._shown if self._open == Control.DISPLAY else self._said).append(token)
            return
        self._asked.append(token)
        if len(self._asked) == MAX_TASK:
            self._close("too_long")
            self._open = Control.END

    def _close(self, problem: str) -> None:
        self._spans.append(Span(self._tokenizer.decode(self._asked).strip(), problem))
        self._asked = []

    def _complete(self, tokens: list[int]) -> tuple[str, list[int]]:
        """The text of `tokens`, and those at its end that are only the first bytes of a character."""
        for cut in range(min(len(tokens), MAX_BYTES - 1) + 1):
            text = self._tokenizer.decode(tokens[: len(tokens) - cut])
            if not text.endswith("\ufffd"):
                return text, tokens[len(tokens) - cut :]
        return self._tokenizer.decode(tokens), []


def micro_turn_of_row(
    index: int, row: int, valid: np.ndarray, output: MicroTurnOutput, samples: np.ndarray, mouth: Mouth, seconds: float
) -> MicroTurn:
    """What one of B sessions put out.

    Args:
      index: micro-turn of the session.
      row: of the session.
      valid: (B,), elements of their input.
      output: of all B, numpy arrays.
      samples: (B, 4800) float32.
      mouth: of the session; takes in its tokens.
      seconds: from input to output.

    Returns:
      The micro-turn.
    """
    text, display = mouth.words(output.token[row, : output.count[row]].tolist())
    gate, start = "SPEAK" if output.speak[row] else "LISTEN", round(index * MICRO_TURN_SECONDS, 6)
    put_out = int(output.count[row]) + 1 + AUDIO_ELEMENTS * int(output.speak[row])
    mel, sound = output.mel[row], samples[row]
    return MicroTurn(index, start, gate, text, display, mel, sound, seconds, int(valid[row]), put_out, mouth.spans())
