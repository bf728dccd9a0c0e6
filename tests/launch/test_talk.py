import dataclasses
import json
import subprocess
import sys
import wave

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from small import small_config
from synthetic import tokenizer

from launch import config_flag
from launch import talk as command
from tml_jax.data.record import USER, Text
from tml_jax.eval import conversation
from tml_jax.serve import session
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import MicroTurn, Span
from tml_jax.signal import media


class FakeTalker:
    """Speaks for two micro-turns after each loud one, a word each; keeps what it was given."""

    def __init__(self, checkpoint, seed=0):
        self.checkpoint, self.seed = checkpoint, seed
        config = small_config()
        self.config = dataclasses.replace(config, data=dataclasses.replace(config.data, video_grid=(1, 2)))
        self.tokenizer = tokenizer()
        FakeTalker.made = self

    def warm_up(self):
        self.warm = True

    def talk(self, user_audio, frames=(), texts=(), micro_turns=None):
        self.given, self.micro_turns = (user_audio, list(frames), list(texts)), micro_turns
        left = 0
        for index in range(micro_turns):
            loud = user_audio is not None and np.abs(user_audio[3200 * index : 3200 * (index + 1)]).max() > 0.1
            left = 2 if loud else left - 1
            yield micro_turn(index, left > 0, f" w{index}" if left > 0 else "")


def micro_turn(index, speaks, text="", level=0.5):
    samples = np.full(4800, level if speaks else 0.0, np.float32)
    return MicroTurn(
        index=index,
        start=0.2 * index,
        gate="SPEAK" if speaks else "LISTEN",
        text=text,
        display="",
        mel=np.zeros((20, 80), np.float32),
        samples=samples,
        compute_seconds=0.05,
    )


def read_wav(path):
    with wave.open(str(path)) as file:
        shape = file.getnchannels(), file.getframerate(), file.getsampwidth()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, shape[0])
    return shape, samples.T / 32768


def test_the_file_holds_both_sides_on_one_clock(tmp_path):
    tone = np.zeros(5 * 3200, np.float32)
    tone[8000:12000] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 16_000)  # 0.5 … 0.75 s
    turns = [micro_turn(t, t == 2, " yes" if t == 2 else "") for t in range(5)]
    files = conversation.write_conversation(tmp_path / "out", tone, turns)
    assert [file.name for file in files] == ["conversation.wav", "micro_turns.jsonl", "timeline.png"]
    shape, (user, model) = read_wav(files[0])
    assert shape == (2, 24_000, 2)
    assert len(user) == 5 * 4800
    # Micro-turn 2 takes in [0.4, 0.6) s and is heard in [0.6, 0.8) s, nowhere else.
    assert np.flatnonzero(np.abs(model) > 0.1).tolist() == list(range(3 * 4800, 4 * 4800))
    expected = np.zeros(5 * 4800)
    expected[12_000:18_000] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(6000) / 24_000)
    inside = slice(12_240, 17_760)  # away from the edges, where a band-limited tone rings
    assert np.abs(user - expected)[inside].max() < 2e-3
    assert np.abs(user[:11_000]).max() < 2e-3 and np.abs(user[19_000:]).max() < 2e-3


def test_the_sound_of_the_last_micro_turn_lies_beyond_the_end():
    sound = conversation.conversation_sound(None, [micro_turn(0, False), micro_turn(1, True)])
    assert sound.shape == (2, 9600) and not sound.any()


def test_short_user_audio_is_filled_with_silence_and_long_audio_refused():
    turns = [micro_turn(t, False) for t in range(3)]
    assert conversation.conversation_sound(np.ones(100, np.float32), turns).shape == (2, 14_400)
    with pytest.raises(ValueError, match="at most 9600"):
        conversation.conversation_sound(np.ones(9601, np.float32), turns)
    with pytest.raises(ValueError, match="int16"):
        conversation.conversation_sound(np.ones(9600, np.int16), turns)


@pytest.mark.parametrize("turns", [[], [micro_turn(1, False)], [micro_turn(0, False), micro_turn(2, False)]])
def test_missing_micro_turns_are_refused(turns):
    with pytest.raises(ValueError, match="in order from 0"):
        conversation.conversation_sound(None, turns)


def test_micro_turns_are_written_one_a_line(tmp_path):
    turns = [micro_turn(0, False), micro_turn(1, True, " naïve")]
    file = conversation.write_conversation(tmp_path / "out", None, turns)[1]
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert lines[1] == {
        "index": 1, "start": 0.2, "gate": "SPEAK", "text": " naïve", "display": "", "compute_seconds": 0.05,
        "asked": [], "read": [],
    }  # fmt: skip
    assert len(lines) == 2


def test_an_earlier_conversation_is_replaced_and_nothing_else_is(tmp_path):
    folder = tmp_path / "deep" / "out"
    conversation.write_conversation(folder, None, [micro_turn(t, False) for t in range(9)])
    files = conversation.write_conversation(folder, None, [micro_turn(0, False)])
    assert len(read_wav(files[0])[1][0]) == 4800
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(conversation.FILES)
    (folder / "notes.txt").write_text("mine")
    before = files[1].read_bytes()
    with pytest.raises(FileExistsError, match="notes.txt"):
        conversation.write_conversation(folder, None, [micro_turn(t, False) for t in range(4)])
    assert files[1].read_bytes() == before
    with pytest.raises(FileExistsError, match="is a file"):
        conversation.write_conversation(folder / "notes.txt", None, [micro_turn(0, False)])


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    (tmp_path / "existing").mkdir()
    monkeypatch.setattr(conversation, "draw_timeline", fail)
    for folder in (tmp_path / "new", tmp_path / "existing"):
        with pytest.raises(OSError, match="disk full"):
            conversation.write_conversation(folder, None, [micro_turn(0, False)])
    assert [entry.name for entry in tmp_path.iterdir()] == ["existing"]
    assert not list((tmp_path / "existing").iterdir())


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("hello", Text(USER, "hello", 0.0)),
        ("at 1.5: hello there", Text(USER, "hello there", 1.5)),
        ("at 2:x", Text(USER, "x", 2.0)),
        ("meet me at 5: sharp", Text(USER, "meet me at 5: sharp", 0.0)),
        ("at noon: lunch", Text(USER, "at noon: lunch", 0.0)),
    ],
)
def test_typed_text_may_carry_its_time(argument, text):
    assert command.parse_text(argument) == text


def test_typed_text_needs_words():
    with pytest.raises(ValueError, match="no words"):
        command.parse_text("at 1.0:  ")


def run(**values):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    names = ("checkpoint", "audio", "video", "text", "output", "seed", "tail", "background")
    settings = {name: values[name] for name in names if name in values}
    with flagsaver.flagsaver(**settings):
        command.main(["talk"])


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(session, "Talker", FakeTalker)
    (tmp_path / "model").mkdir()
    tone = np.zeros((1, 16_000), np.float32)
    tone[0, :3200] = 0.5
    media.write_wav(tmp_path / "in.wav", tone, 16_000)
    return tmp_path


def test_the_command_talks_and_reports(prepared, capsys):
    run(
        checkpoint=str(prepared / "model"), audio=str(prepared / "in.wav"), text=["at 0.3: hi", "first"],
        output=str(prepared / "out"), seed=7, tail=1.0,
    )  # fmt: skip
    audio, _, texts = FakeTalker.made.given
    assert FakeTalker.made.seed == 7
    assert audio.shape == (10 * 3200,) and not audio[16_000:].any()  # 1 s and 1 s of tail
    assert FakeTalker.made.micro_turns == 10
    assert texts == [Text(USER, "first", 0.0), Text(USER, "hi", 0.3)]
    printed = capsys.readouterr().out.splitlines()
    assert FakeTalker.made.warm
    assert [line.split() for line in printed[2:5]] == [
        ["0.2", "s", "SPEAK", "w0"],
        ["0.4", "s", "SPEAK", "w1"],
        ["0.6", "s", "LISTEN"],
    ]
    assert any("real-time factor 0.25" in line for line in printed)
    assert [line for line in printed if line.startswith("wrote")] == [
        f"wrote {prepared / 'out' / name}" for name in conversation.FILES
    ]
    assert all((prepared / "out" / name).stat().st_size > 0 for name in conversation.FILES)


def test_with_a_background_tasks_are_done_and_drawn(prepared, capsys, monkeypatch):
    class Asks(FakeTalker):
        def __init__(self, checkpoint, seed=0, delegate=False):
            super().__init__(checkpoint, seed)
            assert delegate

        def talk(self, user_audio, frames=(), texts=(), micro_turns=None, desk=None):
            for index in range(micro_turns):
                desk.take_in(Arrived(None))
                spans = (Span("6 times 7"),) if index == 1 else (Span("2 + 3"),) if index == 10 else ()
                yield desk.put_out(dataclasses.replace(micro_turn(index, False), spans=spans))
            desk.end((Span("what is", "unclosed"),))

    monkeypatch.setattr(session, "Talker", Asks)
    settings = {"checkpoint": str(prepared / "model"), "text": ["hi"], "output": str(prepared / "out"), "tail": 2.4}
    run(**settings, background="local")
    printed = capsys.readouterr().out
    assert "[task: 6 times 7]" in printed and "[result: #1. 42]" in printed
    assert "  [at the end half written: what is]\n  [at the end under way: task 2: 2 + 3]\n" in printed
    lines = [json.loads(line) for line in (prepared / "out" / "micro_turns.jsonl").read_text().splitlines()]
    assert lines[1]["asked"] == ["6 times 7"] and [line["index"] for line in lines if line["read"]] == [6]


def test_ctrl_c_writes_what_was_said_so_far_and_ends_the_background(prepared, capsys, monkeypatch):
    class Interrupted(FakeTalker):
        def __init__(self, checkpoint, seed=0, delegate=False):
            super().__init__(checkpoint, seed)

        def talk(self, user_audio, frames=(), texts=(), micro_turns=None, desk=None):
            Interrupted.desk = desk
            for turn in super().talk(user_audio, frames, texts, micro_turns):
                if turn.index == Interrupted.end:
                    raise KeyboardInterrupt
                yield turn

    monkeypatch.setattr(session, "Talker", Interrupted)
    settings = {"checkpoint": str(prepared / "model"), "audio": str(prepared / "in.wav"), "output": str(prepared / "o")}
    Interrupted.end = 0
    with pytest.raises(SystemExit) as caught:
        run(**settings)
    assert caught.value.code == config_flag.INTERRUPTED and "nothing was said" in capsys.readouterr().err
    assert not (prepared / "o").exists()
    Interrupted.end = 3
    with pytest.raises(SystemExit) as caught:
        run(**settings, text=["hi", "at 1.9: later"], background="local")
    assert caught.value.code == config_flag.INTERRUPTED and "Ctrl-C" in capsys.readouterr().err
    assert read_wav(prepared / "o" / "conversation.wav")[1].shape == (2, 3 * 4800)
    assert not Interrupted.desk._background.runner._runner._thread.is_alive()


# The command itself, with a Ctrl-C while it compiles.
COMPILING = """
import atexit, os, runpy, signal, sys
from tml_jax.serve import session
class Talker:
    def __init__(self, checkpoint, seed):
        pass
    def warm_up(self):
        os.kill(os.getpid(), signal.SIGINT)
session.Talker = Talker
atexit.register(print, "taken down")
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell runs this behind its back
sys.argv = ["talk", *sys.argv[1:]]
runpy.run_module("launch.talk", run_name="__main__")
"""


def test_ctrl_c_while_it_compiles_ends_the_process_before_the_backend_is_taken_down(prepared):
    flags = f"--checkpoint={prepared / 'model'}", f"--audio={prepared / 'in.wav'}", f"--output={prepared / 'out'}"
    ended = subprocess.run([sys.executable, "-c", COMPILING, *flags], capture_output=True, text=True, timeout=300)
    assert ended.stdout == "compiling, which may take a minute\n", ended.stderr
    assert ended.returncode == config_flag.INTERRUPTED
    assert ended.stderr == "launch.talk: stopped by Ctrl-C; nothing was said and nothing is written\n"


def test_text_alone_has_no_microphone_and_lasts_until_after_the_last_text(prepared):
    run(checkpoint=str(prepared / "model"), text=["at 1.0: hi"], output=str(prepared / "out"), tail=0.5)
    audio, frames, _ = FakeTalker.made.given
    assert audio is None and frames == [] and FakeTalker.made.micro_turns == 10
    assert read_wav(prepared / "out" / "conversation.wav")[1].shape == (2, 10 * 4800)


def test_the_session_lasts_until_long_texts_are_taken_in(prepared):
    texts = ["at 0.1: " + "hi " * 20, "at 0.2: " + "hi " * 20]
    run(checkpoint=str(prepared / "model"), text=texts, output=str(prepared / "out"), tail=0.0)
    talker = FakeTalker.made
    tokens = sum(1 + len(talker.tokenizer.encode_words(text.split(": ")[1])) for text in texts)
    assert tokens <= talker.micro_turns * talker.config.serve.max_text_in < tokens + 3 * talker.config.serve.max_text_in


def test_a_silent_file_is_silence_as_long_as_the_session(prepared):
    media.write_wav(prepared / "silent.wav", np.zeros((1, 1600), np.float32), 16_000)
    settings = {"audio": str(prepared / "silent.wav"), "text": ["at 1.0: hi"], "tail": 0.5}
    run(checkpoint=str(prepared / "model"), output=str(prepared / "out"), **settings)
    audio = FakeTalker.made.given[0]
    assert audio.shape == (10 * 3200,) and not audio.any()


def test_a_film_is_cut_to_the_models_grid_and_the_session_outlasts_it(prepared, monkeypatch):
    def read_video(path, rows, columns):
        assert path == "film.mp4"
        return iter([(0.1 * i, np.zeros((rows, columns, 3), np.uint8)) for i in range(15)])

    monkeypatch.setattr(media, "read_video", read_video)
    run(checkpoint=str(prepared / "model"), video="film.mp4", output=str(prepared / "out"), tail=0.2)
    audio, frames, _ = FakeTalker.made.given
    assert len(frames) == 15 and frames[0][1].shape == (40, 80, 3)  # the fake's grid is 1 × 2 patches
    assert audio is None and FakeTalker.made.micro_turns == 8  # 1.4 s and 0.2 s of tail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "nowhere"}, "nowhere: no such folder"),
        ({"audio": None}, "give --audio, --video or --text"),
        ({"audio": "missing.wav"}, "missing.wav"),
        ({"audio": __file__}, "test_talk.py"),
        ({"video": "missing.mp4"}, "missing.mp4"),
        ({"output": "."}, "holds other files"),
        ({"text": ["at 1.0:"]}, "no words"),
        ({"text": ["at 1,5: hello"]}, "seconds from 0 on with a point"),
        ({"text": ["at -1: hello"]}, "seconds from 0 on with a point"),
        ({"tail": float("nan")}, "--tail=nan: expected a number"),
        ({"background": "client"}, "--background=client has no part here, where there is no client: give local"),
        ({"audio": "."}, "is a folder, expected a file"),
        ({"output": "in.wav/out"}, "in.wav is a file"),
        ({"output": "/proc/out"}, "cannot be written"),
    ],
)
def test_wrong_input_ends_with_one_line_that_names_it(prepared, monkeypatch, change, message):
    monkeypatch.chdir(prepared)
    settings = {"checkpoint": "model", "audio": "in.wav", "output": "out", **change}
    with pytest.raises(SystemExit, match=message) as caught:
        run(**settings)
    assert "\n" not in str(caught.value)
    assert not (prepared / "out").exists()
