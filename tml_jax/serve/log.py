"""What happens to sessions and to the clock: one line of the log for each event, for people or for machines.

A line has the time, the event and its fields. It never has what was said, written or shown, nor a key or a ticket.
Lines are written by a thread of their own, so that a log that nobody reads holds up no session: what does not fit
into the queue is dropped and counted.
"""

import contextlib
import datetime
import json
import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any, TextIO

EVENTS = "tml_jax.serve"  # name of the logger
WAITING = 10_000  # lines
_ENDING_SECONDS = 2.0


def log_event(event: str, level: int = logging.INFO, error: Exception | None = None, **fields: Any) -> None:
    """Logs an event.

    Args:
      event: its name, such as `session_opened`.
      level: of `logging`.
      error: that is behind it, logged with its traceback.
      **fields: JSON values.
    """
    logging.getLogger(EVENTS).log(level, event, exc_info=error, extra={"fields": fields})


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The event of a record first; what other libraries log is the event `log`."""
    if record.name == EVENTS:
        fields = {"event": record.getMessage(), **getattr(record, "fields", {})}
    else:
        fields = {"event": "log", "logger": record.name, "message": record.getMessage()}
    if record.exc_info:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: `time` (UTC), `level`, `event`, and the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        return json.dumps({"time": _time(record), "level": record.levelname.lower(), **_fields(record)}, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: time, level, event, `name=value` for each field; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        fields = _fields(record)
        trace = fields.pop("exception", None)
        words = [_time(record), record.levelname.lower(), fields.pop("event")]
        words += [f"{name}={value}" for name, value in fields.items()]
        return " ".join(words) + (f"\n{trace}" if trace else "")


FORMATTERS = {"json": JsonFormatter, "text": TextFormatter}


class LineHandler(logging.Handler):
    """Hands lines to a thread that writes them, and never waits for it."""

    def __init__(self, stream: TextIO) -> None:
        """Writes to `stream` from now on."""
        super().__init__()
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, args=(stream,), name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queues a record, or drops it."""
        try:
            if self._dropped:
                fields = {"fields": {"count": self._dropped}}
                dropped = logging.makeLogRecord({"name": EVENTS, "msg": "lines_dropped", **fields})
                self._lines.put_nowait(self.format(dropped))
                self._dropped = 0
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._dropped += 1
        except Exception:  # as every handler does: whoever logs must not fail by it
            self.handleError(record)

    def close(self) -> None:
        """Writes what waits, unless nobody reads it."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_ENDING_SECONDS)
        self._thread.join(_ENDING_SECONDS)
        super().close()

    def _write(self, stream: TextIO) -> None:
        while (line := self._lines.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # a stream that is closed
                stream.write(line + "\n")
                stream.flush()


@contextlib.contextmanager
def logging_to(stream: TextIO, form: str) -> Iterator[None]:
    """Sends all that is logged to a stream, events from INFO on.

    Args:
      stream: such as stderr.
      form: one of `FORMATTERS`.
    """
    handler, root, events = LineHandler(stream), logging.getLogger(), logging.getLogger(EVENTS)
    handler.setFormatter(FORMATTERS[form]())
    handlers, level = root.handlers, events.level
    root.handlers = [handler]
    events.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = handlers
        events.setLevel(level)
        handler.close()
