"""Talks to a trained model: streams a recording, a film or typed text through it, 200 ms at a time.

  python -m launch.talk --checkpoint=runs/replica --audio=question.wav --output=answer
  python -m launch.talk --checkpoint=shipped --audio=question.wav --output=answer        (the model that comes along)
  python -m launch.talk --checkpoint=runs/replica --video=scene.mp4 --text="at 1.0: What is this?" --output=answer
  python -m launch.talk --checkpoint=runs/replica --audio=sum.wav --background=local --output=answer

The sound of a film is heard if --audio names the film too; without --audio there is no microphone. Nothing is heard
ahead of time: each micro-turn takes in 200 ms and answers before it gets the next. One exception: sound that is not at
16 kHz is resampled first, by a filter that looks up to 5 ms ahead (10 ms from 8 kHz, see `media.resample`). The output
folder gets conversation.wav (user left, model right), micro_turns.jsonl and timeline.png; after Ctrl-C, of what there
is so far.
"""

import contextlib
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from absl import app, flags, logging

from launch import background, config_flag
from tml_jax import shipped
from tml_jax.background.backend import Backend
from tml_jax.background.desk import Background, Desk, DeskOptions
from tml_jax.background.stepped import SteppedRunner
from tml_jax.background.tasks import TaskEvent
from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, PATCH
from tml_jax.data.layout import text_in_tokens
from tml_jax.data.record import USER, Text
from tml_jax.eval.conversation import check_output, write_conversation
from tml_jax.serve import session
from tml_jax.signal import media
from tml_jax.train.checkpoint import CheckpointError

_AUDIO_HELP = (
    "Recording of the user, any format and rate. Without it the session has no microphone, which is not the same as "
    "silence: for a user who is silent, give a silent file, however short."
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of a trained model, or `shipped`.", required=True)
_AUDIO = flags.DEFINE_string("audio", None, _AUDIO_HELP)
_VIDEO = flags.DEFINE_string("video", None, "Film of what the user shows.")
_TEXT = flags.DEFINE_multi_string("text", [], 'Typed text: "at 1.5: hello" (seconds), or "hello" for the start.')
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write: new, empty, or an earlier one.", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the model's draws.", lower_bound=0, upper_bound=2**31 - 1)
_TAIL = flags.DEFINE_float("tail", 2.0, "Seconds after the input, for the model to finish.", lower_bound=0.0)


def parse_text(argument: str) -> Text:
    """Typed text from its flag: `at SECONDS: words`, or plain words at 0 s."""
    timed = re.fullmatch(r"\s*at\s+(\d+(?:\.\d*)?)\s*:\s*(.*)", argument, re.DOTALL)
    if not timed and re.match(r"\s*at\s+[-+\d.,]+\s*:", argument):
        raise ValueError(f'--text={argument!r}: expected seconds from 0 on with a point, such as "at 1.5: hello"')
    time, words = (float(timed[1]), timed[2]) if timed else (0.0, argument)
    if not words.strip():
        raise ValueError(f'--text={argument!r} has no words: give "at 1.5: hello", or just "hello"')
    return Text(USER, words.strip(), time)


def text_ends(texts: Sequence[Text], talker: session.Talker) -> list[float]:
    """When the last token of each text has been taken in, seconds; a micro-turn takes `max_text_in` of them."""
    ends, free = [], 0.0
    for text in texts:
        tokens = len(text_in_tokens(text.speaker, text.text, talker.tokenizer, talker.config.model))
        begins = max(text.time, free)
        free = begins + MICRO_TURN_SECONDS * math.ceil(tokens / talker.config.serve.max_text_in)
        ends.append(free)
    return ends


def with_tail(audio: np.ndarray | None, times: Sequence[float], tail: float) -> tuple[np.ndarray | None, int]:
    """The user's sound in the whole session, and how long that is.

    Args:
      audio: (n,) float32 at 16 kHz, or None where there is no microphone.
      times: of frames, and of the ends of texts, seconds; the session lasts at least until the last.
      tail: seconds after all input.

    Returns:
      The audio with silence after it, (3200 × micro-turns,) float32, or None; the number of micro-turns.
    """
    seconds = max([0.0 if audio is None else len(audio) / INPUT_RATE, *times]) + tail
    count = max(1, int(np.ceil(round(seconds / MICRO_TURN_SECONDS, 6))))
    if audio is None:
        return None, count
    return np.pad(audio, (0, count * round(MICRO_TURN_SECONDS * INPUT_RATE) - len(audio))), count


def narrate(micro_turns: Iterable[session.MicroTurn]) -> Iterator[session.MicroTurn]:
    """Passes micro-turns on, printing a line for each that has words or a change of the gate."""
    gate = "LISTEN"
    for turn in micro_turns:
        asked = "".join(f"  [task: {span.text}]" for span in turn.spans)
        read = "".join(f"  [result: {text}]" for text in turn.given)
        if turn.gate != gate or turn.text.strip() or turn.display.strip() or asked or read:
            shown = f"  [shown: {turn.display.strip()}]" if turn.display.strip() else ""
            shown += read + asked
            print(f"{turn.start + MICRO_TURN_SECONDS:7.1f} s  {turn.gate:<6}  {turn.text.strip()}{shown}", flush=True)
        gate = turn.gate
        yield turn


def tell_left(events: Iterable[TaskEvent]) -> None:
    """Prints a line for each task that the end of the session cut off."""
    for event in events:
        if event.what == "malformed":
            print(f"  [at the end half written: {event.text}]")
        else:
            print(f"  [at the end under way: task {event.number}: {event.text}]")


def _load() -> tuple[session.Talker, np.ndarray | None, int, list[tuple[float, np.ndarray]], list[Text], dict]:
    """The talker, the user's audio, micro-turns to run, frames, texts, and the `desk` if there is a background.

    Quick checks come first, the model last.
    """
    if not (_AUDIO.value or _VIDEO.value or _TEXT.value):
        raise ValueError("nothing to say to the model: give --audio, --video or --text")
    if not math.isfinite(_TAIL.value):
        raise ValueError(f"--tail={_TAIL.value}: expected a number of seconds")
    if not shipped.resolve(_CHECKPOINT.value).is_dir():
        raise FileNotFoundError(f"--checkpoint={_CHECKPOINT.value}: no such folder; train a model with launch.train")
    if background.kind() == "client":
        raise ValueError("--background=client has no part here, where there is no client: give local, openai or none")
    check_output(_OUTPUT.value)
    texts = sorted((parse_text(argument) for argument in _TEXT.value), key=lambda text: text.time)
    audio = media.read_audio(_AUDIO.value, INPUT_RATE, channels=1)[0] if _AUDIO.value else None

    backend, options = background.make_backend(), background.desk_options()
    may = {} if backend is None else {"delegate": True}
    talker = session.Talker(_CHECKPOINT.value, seed=_SEED.value, **may)
    given = {} if backend is None else {"desk": _desk(backend, options, talker)}
    frames = []
    if _VIDEO.value:
        rows, columns = (cells * size for cells, size in zip(talker.config.data.video_grid, PATCH[1:3]))
        frames = list(media.read_video(_VIDEO.value, rows, columns))
    times = [time for time, _ in frames] + text_ends(texts, talker)
    return talker, *with_tail(audio, times, _TAIL.value), frames, texts, given


def _desk(backend: Backend, options: DeskOptions, talker: session.Talker) -> Desk:
    """For one session, whose results come after the usual delay, or as long as the backend takes."""
    runner = SteppedRunner(backend, timed=True)
    return Background(runner, talker.tokenizer, talker.config, options).open()


def _until(
    end: float, audio: np.ndarray | None, frames: Sequence[tuple[float, np.ndarray]], texts: Sequence[Text]
) -> tuple[np.ndarray | None, list[tuple[float, np.ndarray]], list[Text]]:
    """What had been given until `end`, seconds."""
    heard = None if audio is None else audio[: round(end * INPUT_RATE)]
    return heard, [frame for frame in frames if frame[0] < end], [text for text in texts if text.time < end]


def main(argv: Sequence[str]) -> None:
    """Runs the command. What is wrong with its input ends it with one line; Ctrl-C leaves what there is so far."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)  # Orbax says much at INFO
    micro_turns, given = [], {}
    try:
        try:
            talker, user_audio, count, frames, texts, given = _load()
        except (OSError, ValueError, CheckpointError) as error:
            raise SystemExit(f"launch.talk: {error}") from error
        print("compiling, which may take a minute", flush=True)
        talker.warm_up()
        print("  heard at  gate    words", flush=True)
        with contextlib.closing(talker.talk(user_audio, frames, texts, micro_turns=count, **given)) as talking:
            for turn in narrate(talking):
                micro_turns.append(turn)
    except KeyboardInterrupt:
        if not micro_turns:
            config_flag.interrupted("talk", "nothing was said and nothing is written")
        user_audio, frames, texts = _until(MICRO_TURN_SECONDS * len(micro_turns), user_audio, frames, texts)
    finally:
        if "desk" in given:
            given["desk"].close()
            tell_left(given["desk"].left)
    try:
        files = write_conversation(_OUTPUT.value, user_audio, micro_turns, frames, texts)
    except OSError as error:
        raise SystemExit(f"launch.talk: --output={_OUTPUT.value} cannot be written: {error}") from error

    compute = np.asarray([turn.compute_seconds for turn in micro_turns])
    factor = compute.mean() / MICRO_TURN_SECONDS
    print(f"{MICRO_TURN_SECONDS * len(micro_turns):.1f} s of conversation in {compute.sum():.1f} s of computing")
    print(f"real-time factor {factor:.2f} (below 1 keeps up), slowest micro-turn {1000 * compute.max():.0f} ms")
    for file in files:
        print(f"wrote {file}")
    if len(micro_turns) < count:
        print("launch.talk: ended by Ctrl-C before its time", file=sys.stderr)
        raise SystemExit(config_flag.INTERRUPTED)


if __name__ == "__main__":
    config_flag.run(main)
