"""Live sessions in real time: one thread takes every session's window each 200 ms and hands out what the model says.

Overload. Ticks stand on a schedule of 200 ms. One that ends after the next should have begun is *late*, and counted;
the ones after it follow at once until the schedule is met again, so nothing is lost. If the schedule is more than
`MAX_BEHIND` seconds away, it starts anew: every session passes over the windows that are overdue, which are counted as
*skipped* and marked for the model as lost. After `OVERLOADED` late ticks in a row no new session is let in, until one
is on time. Sessions know of both (`LiveSession.overloaded`, `passed`).
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from tml_jax.background.desk import Background, Desk
from tml_jax.config import MICRO_TURN_SECONDS, Config
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.data.record import Text
from tml_jax.serve import jitter
from tml_jax.serve.engine import Engine, FullError
from tml_jax.serve.log import log_event
from tml_jax.serve.speech import Endpointing
from tml_jax.serve.windows import Arrived, InputError, check_frame, text_bytes
from tml_jax.serve.words import MicroTurn

MAX_BEHIND = 1.0
OVERLOADED = 5
MAX_OFFSET = 2**40  # samples: two years
MAX_WAITING_TEXT = 20_000  # bytes of text that a session may have waiting


@dataclasses.dataclass(frozen=True)
class Ended:
    """The last thing that a session is given, and why: `not_finite` or `engine_failed`."""

    reason: str


Deliver = Callable[[MicroTurn | Ended], None]


@dataclasses.dataclass(frozen=True)
class Report:
    """One tick: `seconds` it took, `sessions` in it, whether it was `late`, windows `skipped` before it, whether nobody
    new is let in after it because it was one of many late ones (`overloaded`), and what has become of `sound` since the
    tick before, of sessions that have any."""

    seconds: float
    sessions: int
    late: bool
    skipped: int
    overloaded: bool
    sound: jitter.Counts = jitter.Counts()


class LiveSession:
    """One session's input, given from any thread at any time."""

    def __init__(self, deliver: Deliver, seed: int, stamped: bool, delay: float, horizon: int, config: Config) -> None:
        """A session that has not begun; `Scheduler.join` makes it."""
        self.deliver, self.seed, self.slot = deliver, seed, None
        self.desk: Desk | None = None  # its tasks, where there is a background
        self._stamped, self._config = stamped, config
        self._lock = threading.Lock()
        self._buffer = jitter.JitterBuffer(delay=delay, horizon=horizon)
        self._holes: set[int] = set()  # windows of which some sound was lost on the way
        self._heard, self._lost, self._waiting_text = False, False, 0
        self.away = False  # whether its client was cut off, so that what is missing was lost
        self.used = False  # whether anything but quiet was given to it
        self.overloaded = False  # whether the scheduler is
        self.passed = 0  # windows passed over
        self._tallied = jitter.Counts()
        self._texts: list[Text] = []
        self._frames: list[np.ndarray] = []

    @property
    def counts(self) -> jitter.Counts:
        """What became of its sound."""
        return self._buffer.counts

    def hear(self, samples: np.ndarray, now: float, offset: int | None = None, lost: int = 0) -> int:
        """Takes in sound.

        Args:
          samples: (n,) float32 at 16 kHz.
          now: seconds, of the scheduler's clock.
          offset: number of its first sample, where the session is stamped.
          lost: how many of its first samples were lost on the way, and are silence here.

        Returns:
          How many of the samples are not kept because they are too far ahead.

        Raises:
          InputError: the samples are not what the model takes, or the offset is not a sample's number.
        """
        if samples.ndim != 1 or samples.dtype != np.float32 or not np.isfinite(samples).all():
            given = f"{samples.dtype} of shape {samples.shape}"
            raise InputError(f"sound is {given}: expected finite float32 of shape (n,) at 16 kHz")
        if (offset is None) == self._stamped or (offset is not None and not 0 <= offset < MAX_OFFSET):
            raise InputError(f"offset = {offset}: expected {f'0 to {MAX_OFFSET}' if self._stamped else 'none'}")
        with self._lock:
            before, start = self._buffer.counts.beyond, jitter.end(self._buffer)
            self._holes.update(range(start // INPUT_SAMPLES, -(-(start + lost) // INPUT_SAMPLES)) if lost else ())
            self._buffer = jitter.push(self._buffer, samples, now, offset)
            self._heard = True
            self.used = self.used or _loud(samples)
            return self._buffer.counts.beyond - before

    def see(self, frame: np.ndarray, now: float) -> None:
        """Takes in a frame, (rows, columns, 3) uint8; of several in a window the last two are seen.

        Raises:
          InputError: the frame has the wrong shape or type.
        """
        check_frame(frame, self._config)
        self.used = True
        with self._lock:
            self._frames = [*self._frames, frame][-2:]
            self._buffer = jitter.begin(self._buffer, now)

    def read(self, text: Text, now: float) -> None:
        """Takes in typed text or a result.

        Raises:
          InputError: the text is no Unicode, or more waits than the session may have.
        """
        size = text_bytes(text.text) + 1
        with self._lock:
            if self._waiting_text + size > MAX_WAITING_TEXT:
                raise InputError(f"{self._waiting_text + size} bytes of text would wait: expected {MAX_WAITING_TEXT}")
            self.used = True
            self._waiting_text += size
            self._texts.append(text)
            self._buffer = jitter.begin(self._buffer, now)

    def tasks_by_client(self, does: bool) -> None:
        """Says whether the client does the tasks that begin from now on, instead of the background."""
        if self.desk is not None:
            self.desk.by_client = does

    def answer(self, number: int, revision: int, text: str, now: float) -> None:
        """Takes in the result of a task that the client has done.

        Raises:
          InputError: the text is no Unicode.
        """
        text_bytes(text)
        if self.desk is not None:
            self.desk.answer(number, revision, text)
        self.begin(now)

    def played(self, index: int, samples: int) -> None:
        """Takes in how many samples of the sound of a micro-turn were heard, where it is less than all or just that."""
        if self.desk is not None:
            self.desk.played(index, samples)

    def heard_until(self, index: int) -> float:
        """When the last sound of a window could have arrived at the earliest, seconds of the scheduler's clock."""
        with self._lock:
            buffer = self._buffer
        return jitter.due(buffer) - buffer.delay - (buffer.taken - index) * MICRO_TURN_SECONDS

    def begin(self, now: float) -> None:
        """Starts the session's time, if nothing has come yet: the model is to say something."""
        with self._lock:
            self.used = True
            self._buffer = jitter.begin(self._buffer, now)

    def clear(self) -> None:
        """Forgets sound that has not been heard yet."""
        with self._lock:
            self._buffer = jitter.clear(self._buffer)

    @property
    def begun(self) -> bool:
        """Whether its time has begun."""
        return self._buffer.origin is not None

    def tally(self) -> jitter.Counts:
        """What has become of its sound since this was asked last; nothing where there never was any."""
        with self._lock:
            before, self._tallied = self._tallied, self._buffer.counts
            return self._tallied - before if self._heard else jitter.Counts()

    @property
    def window(self) -> int:
        """Number of the window that was collected last."""
        return self._buffer.taken - 1

    def collect(self, now: float) -> Arrived | None:
        """What arrived in the window that is due at `now`; None where none is."""
        with self._lock:
            self._buffer, window = jitter.take(self._buffer, now)
            if window is None:
                return None
            if window.dropped:
                parts = window.dropped // INPUT_SAMPLES, -(-window.dropped // INPUT_SAMPLES)
                self._holes = {index - part for index in self._holes for part in parts}
            gone = len(window.audio) == window.missing
            lost = (
                self._lost
                or window.cut
                or window.index in self._holes
                or ((self._stamped or self.away) and self._heard and window.missing > 0)
            )
            silent = not self._heard or (gone and lost)  # without a microphone, or with nothing of its sound
            frames = [(MICRO_TURN_SECONDS / 2, frame) for frame in self._frames]
            arrived = Arrived(None if silent else window.audio, frames, self._texts, lost)
            self._texts, self._frames, self._lost = [], [], False
            self._holes = {index for index in self._holes if index > window.index}
            # Results are read at half the pace of what is typed, so this much is read for certain.
            self._waiting_text = max(0, self._waiting_text - max(1, self._config.serve.max_text_in // 2))
            return arrived

    def catch_up(self, now: float) -> int:
        """Passes over overdue windows. Returns how many."""
        with self._lock:
            before = self._buffer.taken
            self._buffer = jitter.catch_up(self._buffer, now)
            passed = self._buffer.taken - before
            self.passed += passed
            self._lost |= passed > 0 and self._heard
            return passed


class Scheduler:
    """The thread that ticks an engine, and the sessions on it."""

    def __init__(
        self,
        engine: Engine,
        delay: float = 0.06,
        horizon: int = 60 * 16_000,
        clock: Callable[[], float] = time.monotonic,
        observe: Callable[[Report], None] = lambda report: None,
        background: Background | None = None,
        max_behind: float = MAX_BEHIND,
        late_in_a_row: int = OVERLOADED,
    ) -> None:
        """Holds a warm engine; `start` begins.

        Args:
          engine: used by this scheduler alone from now on.
          delay: seconds that each window waits for sound on its way.
          horizon: most samples of a session that wait to be heard.
          clock: seconds.
          observe: told of every tick, from its thread.
          background: does the tasks that the model hands over; None where it cannot.
          max_behind: seconds behind its schedule beyond which that starts anew.
          late_in_a_row: late ticks that make an overload.
        """
        self.engine, self.clock, self._observe, self._background = engine, clock, observe, background
        self._delay, self._horizon, self._max_behind, self._overloaded = delay, horizon, max_behind, late_in_a_row
        self._lock = threading.Lock()
        self._open: list[LiveSession] = []
        self._coming: list[LiveSession] = []
        self._going: list[LiveSession] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticks", daemon=True)
        self.late_ticks, self.skipped_windows, self._late_in_a_row = 0, 0, 0
        self.failed: Exception | None = None

    @property
    def free(self) -> int:
        """Places for new sessions; none in an overload."""
        with self._lock:
            return 0 if self.overloaded or self.failed else self.engine.slots - len(self._open)

    @property
    def overloaded(self) -> bool:
        """Whether nobody new is let in because ticks are late."""
        return self._late_in_a_row >= self._overloaded

    @property
    def sessions(self) -> int:
        """How many there are."""
        with self._lock:
            return len(self._open)

    @property
    def tasks(self) -> int:
        """Tasks of all sessions that run in the background."""
        with self._lock:
            return sum(len(session.desk.book.running) for session in self._open if session.desk is not None)

    def join(self, deliver: Deliver, seed: int, stamped: bool) -> LiveSession:
        """A new session. Its time begins with its first input.

        Args:
          deliver: given every micro-turn, from the thread of the ticks: it must return at once.
          seed: of its noise.
          stamped: whether its sound comes with offsets.

        Returns:
          The session.

        Raises:
          FullError: every place is taken.
        """
        session = LiveSession(deliver, seed, stamped, self._delay, self._horizon, self.engine.config)
        with self._lock:
            if len(self._open) >= self.engine.slots:
                raise FullError(f"all {self.engine.slots} places are taken: wait until a session leaves")
            if self._background is not None:
                session.desk = self._background.open()
            self._open.append(session)
            self._coming.append(session)
        return session

    def leave(self, session: LiveSession) -> None:
        """Ends a session; nothing if it has ended."""
        with self._lock:
            if session in self._open:
                self._open.remove(session)
                self._going.append(session)
                if session.desk is not None:
                    session.desk.close()

    def start(self) -> None:
        """Begins to tick."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the tick that runs now."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        scheduled = self.clock()
        while not self._stop.wait(max(0.0, scheduled - self.clock())):
            try:
                scheduled = self.run_tick(scheduled)
            except Exception as error:  # sessions must hear of it, whatever it is
                log_event("engine_failed", logging.ERROR, error, sessions=len(self._open))
                self.failed = error
                with self._lock:
                    ended = list(self._open)
                for session in ended:
                    session.deliver(Ended("engine_failed"))
                return

    def run_tick(self, scheduled: float) -> float:
        """One tick. Returns when the next is due.

        Args:
          scheduled: when this one was due.
        """
        with self._lock:
            coming, going, self._coming, self._going = self._coming, self._going, [], []
        for session in going:
            spans, session.slot = () if session.slot is None else self.engine.leave(session.slot), None
            if session.desk is not None:
                session.desk.end(spans)
                if left := session.desk.left:
                    malformed = sum(event.what == "malformed" for event in left)
                    log_event("tasks_left", running=len(left) - malformed, malformed=malformed)
        for session in coming:
            if session not in going:
                session.slot = self.engine.join(session.seed)
        with self._lock:
            seated = {session.slot: session for session in self._open if session.slot is not None}
        skipped, now = 0, self.clock()
        if now - scheduled > self._max_behind:
            scheduled = now
            skipped = sum(session.catch_up(now) for session in seated.values())
            if skipped:  # nobody new is let in from the first window on that those who are in lose
                self._late_in_a_row = max(self._late_in_a_row, self._overloaded)
        collected = {slot: session.collect(scheduled) for slot, session in seated.items()}
        inputs = {slot: arrived for slot, arrived in collected.items() if arrived is not None}
        desks = {slot: seated[slot].desk for slot in inputs if seated[slot].desk is not None}
        inputs |= {slot: desk.take_in(inputs[slot], seated[slot].window) for slot, desk in desks.items()}
        tick = self.engine.tick(inputs)
        for session in seated.values():
            session.overloaded = self.overloaded
        for slot, turn in tick.turns.items():
            turn = _in_window(turn, seated[slot].window)
            seated[slot].deliver(desks[slot].put_out(turn) if slot in desks else turn)
        for slot in tick.broken:
            seated[slot].slot = None
            self.leave(seated[slot])
            seated[slot].deliver(Ended("not_finite"))
        late = bool(seated) and self.clock() - scheduled > MICRO_TURN_SECONDS
        self._late_in_a_row = self._late_in_a_row + 1 if late else 0
        self.late_ticks += late
        self.skipped_windows += skipped
        sound = sum((session.tally() for session in seated.values()), jitter.Counts())
        self._observe(Report(tick.seconds, len(tick.turns), late, skipped, self.overloaded, sound))
        return scheduled + MICRO_TURN_SECONDS


def _in_window(turn: MicroTurn, window: int) -> MicroTurn:
    """The micro-turn of a window: its number and start are the window's, which windows passed over put ahead."""
    if turn.index == window:
        return turn
    return dataclasses.replace(turn, index=window, start=window * MICRO_TURN_SECONDS)


def _loud(samples: np.ndarray) -> bool:
    """Whether there is more than quiet, (n,) float32."""
    return samples.size > 0 and float(np.sqrt(np.mean(np.square(samples)))) > Endpointing.level
