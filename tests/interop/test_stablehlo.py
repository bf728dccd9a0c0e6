"""The exported program: it runs without this project, and what comes out is what a Talker puts out."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import wave

import jax
import numpy as np
import pytest
from jax import export
from small import small_config
from synthetic import make_config, make_conversation, tokenizer
from trained_run import make_run

from tml_jax.data.layout import INPUT_SAMPLES, control_token, fit_samples, text_in_tokens
from tml_jax.data.record import BACKGROUND, MODEL, USER, Text
from tml_jax.interop import stablehlo, stablehlo_caller, stablehlo_step
from tml_jax.interop.journal import ConvertError
from tml_jax.serve import words
from tml_jax.serve.windows import Arrived, Ear, arrivals, make_block, take_in
from tml_jax.signal import media
from tml_jax.tokens import Control
from tml_jax.train.checkpoint import CheckpointError

ROOT = pathlib.Path(__file__).resolve().parents[2]
TURNS, SEEDS = 20, (3, 8)
CONFIG = small_config()

# Runs where no module of this project can be imported, nor flax. Arguments: folder of the export; file of the inputs,
# stacked along a leading axis; file for the outputs; arguments of the example.
STREAM = """
import pathlib, runpy, sys
sys.modules.update(dict.fromkeys(("tml_jax", "launch", "configs", "flax")))  # with None: importing them fails
try:
    import tml_jax
except ImportError:
    pass
else:
    raise SystemExit("tml_jax can be imported")

import jax, numpy as np
folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder))
import caller

manifest, weights, start, micro_turn = caller.load(folder)
nothing = caller.no_input(manifest)
given = np.load(sys.argv[2])
assert set(nothing) | {"seeds"} == set(given.files)
state, outputs = start(given["seeds"]), []
for turn in range(len(given["audio"])):
    inputs = {name: given[name][turn] for name in nothing}
    assert all(inputs[name].shape == nothing[name].shape for name in nothing)
    assert all(inputs[name].dtype == nothing[name].dtype for name in nothing)
    state, output = micro_turn(state, weights, inputs)
    outputs.append(jax.device_get(output))
np.savez(sys.argv[3], **{name: np.stack([output[name] for output in outputs]) for name in outputs[0]})
sys.argv = ["caller.py", *sys.argv[4:]]
runpy.run_path(str(folder / "caller.py"), run_name="__main__")
assert not any(name.split(".")[0] == "tml_jax" and module for name, module in sys.modules.items())
"""


def start_without_the_project(folder: pathlib.Path, *arguments: str) -> subprocess.Popen:
    """Starts Python in a folder with installed packages, without what an editable install adds to its path.

    It writes no byte code: others look at what is in the folder.
    """
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(paths))
    command, pipe = [sys.executable, "-S", "-P", "-B", *arguments], subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def output_of(process: subprocess.Popen) -> str:
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-4000:]
    return output


def noise(seed: int, seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))).astype(np.float32)


def plain_inputs(sessions: list[list[Arrived]], config) -> list[dict[str, np.ndarray]]:
    """What a caller passes, by the words of the manifest."""
    waiting, results, shown, turns = [[] for _ in sessions], [[] for _ in sessions], [False for _ in sessions], []
    for windows in zip(*sessions, strict=True):
        shapes = stablehlo_step.input_arrays(config, len(sessions))
        given = {name: np.zeros(array.shape, array.dtype) for name, (array, _) in shapes.items()}
        for row, arrived in enumerate(windows):
            if arrived.audio is not None:
                given["audio"][row], given["heard"][row] = arrived.audio, True
            for offset, frame in arrived.frames:
                half = int(round(offset, 6) >= 0.1)
                given["frames"][row, half], given["frames_given"][row, half] = frame, True
            if arrived.frames and not shown[row] and not given["frames_given"][row, 0]:
                # Of several first frames, all in the second half, a session pairs the first with the last.
                given["frames"][row, 0], given["frames_given"][row, 0] = arrived.frames[0][1], True
            shown[row] = shown[row] or bool(arrived.frames)
            for text in arrived.texts:
                queue = results if text.speaker == BACKGROUND else waiting
                queue[row] += text_in_tokens(text.speaker, text.text, tokenizer(), config.model)
            most = config.serve.max_text_in
            now, waiting[row] = waiting[row][:most], waiting[row][most:]
            room = min(most - len(now), max(1, most // 2))
            now, results[row] = now + results[row][:room], results[row][room:]
            given["text"][row, : len(now)], given["text_count"][row] = now, len(now)
        turns.append(given)
    return turns


def windows_of(seed: int, config, turns: int) -> list[Arrived]:
    """The user's side of a random conversation, its microphone off for a micro-turn."""
    conversation = make_conversation(seed)
    audio = conversation.user_audio
    audio = None if audio is None else fit_samples(audio, turns * INPUT_SAMPLES)
    frames = [] if conversation.frames is None else list(zip(conversation.frame_times.tolist(), conversation.frames))
    rows, columns = config.data.video_grid
    frames = [(time, np.roll(np.tile(frame, (rows, columns, 1)), 7, axis=1)) for time, frame in frames]
    texts = [text for text in conversation.texts if text.speaker != MODEL]
    windows = list(arrivals(audio, frames, texts, turns))
    windows[3] = dataclasses.replace(windows[3], audio=None)
    return windows


@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
def test_plain_input_becomes_the_elements_of_a_session(optimised, grid):
    config = make_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, video_grid=grid))
    compiled = jax.jit(lambda state, inputs: stablehlo_step.take_in(state, inputs, config))
    for seeds in ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)):
        sessions = [windows_of(seed, config, 8) for seed in seeds]
        state, ears = stablehlo_step.start(np.arange(3, dtype=np.int32), config), [Ear()] * 3
        for windows, inputs in zip(zip(*sessions), plain_inputs(sessions, config), strict=True):
            taken = [take_in(ear, window, tokenizer(), config) for ear, window in zip(ears, windows)]
            ears = [ear for ear, _ in taken]
            block = make_block([elements for _, elements in taken], config)
            state, ours = compiled(state, inputs)
            np.testing.assert_array_equal(ours.valid, block.valid)
            size = block.elements.stream.shape[1]
            for name in ("stream", "token", "slot"):
                np.testing.assert_array_equal(getattr(ours.elements, name)[:, :size], getattr(block.elements, name))
                assert not np.any(getattr(ours.elements, name)[:, size:])
            for row, (_, elements) in enumerate(taken):
                for name in ("audio_in", "video"):
                    expected = getattr(elements, name)
                    found = np.asarray(getattr(ours.elements, name)[row, : len(expected)])
                    np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def run(small_variables, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", CONFIG, small_variables)


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)])
def exported(request, run, tmp_path_factory):
    """(folder, sessions) of an export made by the command."""
    folder = tmp_path_factory.mktemp("exports") / "out"
    command = [sys.executable, "-m", "launch.export", f"--checkpoint={run}", "--format=stablehlo"]
    command += [f"--output={folder}", f"--sessions={request.param}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"wrote {folder}" in done.stdout
    return folder, request.param


@pytest.fixture(scope="module")
def conversations():
    """What arrives in two sessions: with a microphone, and without."""
    rng = np.random.default_rng(5)
    frames = [(time, rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)) for time in (0.7, 1.05, 1.15, 2.2, 2.25, 3.9)]
    texts = [Text(USER, "red green blue", 0.3), Text(USER, "now", 0.75), Text(BACKGROUND, "red box", 2.3)]
    first = arrivals(noise(1, 3.9), frames, texts, TURNS)
    second = arrivals(None, frames[2:4], [Text(USER, "what do you see", 0.5)], TURNS)
    return [list(first), list(second)]


@dataclasses.dataclass(frozen=True)
class Streamed:
    """What a talker put out, and what the program and the example did in a process of their own."""

    talker: list[list[words.MicroTurn]]
    outputs: dict[str, np.ndarray]
    example_talker: list[list[words.MicroTurn]]
    printed: str
    answer: pathlib.Path


@pytest.fixture(scope="module")
def streamed(exported, conversations, small_talker, tmp_path_factory):
    folder, sessions = exported
    work = tmp_path_factory.mktemp("streamed")
    turns = plain_inputs(conversations[:sessions], CONFIG)
    given = {name: np.stack([turn[name] for turn in turns]) for name in turns[0]}
    np.savez(work / "inputs.npz", seeds=np.asarray(SEEDS[:sessions], np.int32), **given)
    media.write_wav(work / "question.wav", noise(0, 2.3)[None], 16_000)
    files = [work / name for name in ("inputs.npz", "outputs.npz", "question.wav", "answer.wav")]
    process = start_without_the_project(work, "-c", STREAM, str(folder), *map(str, files))
    # The talker meanwhile: both spend most of their time compiling.
    talker = list(small_talker.talk_together([iter(windows) for windows in conversations[:sessions]], SEEDS[:sessions]))
    question = media.read_audio(str(work / "question.wav"), 16_000, channels=1)[0]
    question = np.pad(question, (0, round(stablehlo_caller.TAIL * 16_000)))
    heard = [arrivals(question, [], [], 22) for _ in range(sessions)]
    example = list(small_talker.talk_together(heard, range(sessions)))
    printed = output_of(process)
    return Streamed(talker, dict(np.load(work / "outputs.npz")), example, printed, work / "answer.wav")


def test_a_process_without_this_project_hears_what_a_talker_says(streamed, exported):
    for row in range(exported[1]):
        mouth = words.Mouth(tokenizer(), CONFIG)
        ours = [turns[row] for turns in streamed.talker]
        assert {turn.gate for turn in ours} == {"SPEAK", "LISTEN"} and any(turn.text + turn.display for turn in ours)
        peak = max(np.abs(turn.samples).max() for turn in ours)
        for turn in ours:
            theirs = {name: values[turn.index, row] for name, values in streamed.outputs.items()}
            assert theirs["speak"] == (turn.gate == "SPEAK")
            assert mouth.words(theirs["tokens"][: theirs["count"]].tolist()) == (turn.text, turn.display)
            np.testing.assert_allclose(theirs["mel"], turn.mel, atol=1e-4)
            np.testing.assert_allclose(theirs["samples"], turn.samples, atol=1e-4 * peak)


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("none.wav", "out.wav", "none.wav: cannot be read"),
        ("text.wav", "out.wav", "text.wav: cannot be read"),
        ("text.wav", "text.wav", "exists already"),
        ("text.wav", "nowhere/out.wav", "no such folder"),
    ],
)
def test_the_example_ends_with_a_line_on_wrong_files(exported, tmp_path, monkeypatch, question, answer, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.wav").write_text("no sound")
    monkeypatch.setattr(stablehlo_caller, "__file__", str(exported[0] / "caller.py"))
    with pytest.raises(SystemExit, match=message):
        stablehlo_caller.main(question, answer)


def test_the_example_writes_what_a_talker_says(streamed):
    turns = [turns[0] for turns in streamed.example_talker]
    lines = streamed.printed.splitlines()
    assert [line.split()[:3] for line in lines] == [[f"{turn.start + 0.2:.1f}", "s", turn.gate] for turn in turns]
    with wave.open(str(streamed.answer)) as file:
        assert (file.getnchannels(), file.getframerate()) == (1, 24_000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    expected = np.concatenate([np.zeros(4800), *(turn.samples for turn in turns)])  # heard from the next window on
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(samples, np.clip(expected, -1, 1) * 32767, atol=4)


def test_every_text_token_has_its_bytes(exported):
    pieces = stablehlo_caller.pieces(exported[0])
    text = " what do you see: né日😀 \n"
    assert b"".join(pieces[token] for token in tokenizer().encode(text)).decode() == text
    assert sorted(pieces) == list(range(tokenizer().size))


def test_the_manifest_says_what_the_files_hold(exported):
    folder, sessions = exported
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == sorted(stablehlo._FILES)
    assert manifest["sessions"] == sessions and manifest["made_with"]["jax"] == jax.__version__
    for control in Control:
        assert manifest["tokens"]["control"][control.name] == control_token(control, CONFIG.model)
    described = manifest["functions"]
    functions = {}
    for name in ("start", "micro_turn"):
        assert described[name]["platforms"] == ["cpu", "tpu", "cuda"] and described[name]["custom_calls"] == []
        functions[name] = export.deserialize(bytearray((folder / described[name]["file"]).read_bytes()))
        assert functions[name].platforms == ("cpu", "tpu", "cuda") and functions[name].disabled_safety_checks == ()

    def arrays(tree) -> dict:
        return {name: {"shape": list(leaf.shape), "dtype": leaf.dtype.name} for name, leaf in tree.items()}

    def written(part: dict) -> dict:
        return {name: {"shape": array["shape"], "dtype": array["dtype"]} for name, array in part.items()}

    state = functions["start"].out_avals
    assert written(described["start"]["state"]) == arrays(jax.tree.unflatten(functions["start"].out_tree, state))
    (state, weights, inputs), _ = jax.tree.unflatten(functions["micro_turn"].in_tree, functions["micro_turn"].in_avals)
    assert arrays(state) == written(described["start"]["state"])
    assert arrays(weights) == arrays(stablehlo_caller.load_file(folder / manifest["weights"]["file"]))
    assert arrays(inputs) == written(described["micro_turn"]["inputs"])
    _, output = jax.tree.unflatten(functions["micro_turn"].out_tree, functions["micro_turn"].out_avals)
    assert arrays(output) == written(described["micro_turn"]["output"])


def test_nothing_of_this_machine_is_in_the_files(exported):
    for path in exported[0].iterdir():
        assert str(ROOT).encode() not in path.read_bytes(), path.name


def test_wrong_arguments_are_named(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "new.part").mkdir()
    (tmp_path / "new.part" / "notes.txt").write_text("mine")
    for output, message in (("full", "full holds something already"), ("new", "new.part is in the way")):
        with pytest.raises(ConvertError, match=message):
            stablehlo.export_stablehlo(run, tmp_path / output)
    with pytest.raises(ConvertError, match="full/notes.txt holds something already"):
        stablehlo.export_stablehlo(run, tmp_path / "full" / "notes.txt")
    with pytest.raises(ConvertError, match="sessions = 0"):
        stablehlo.export_stablehlo(run, tmp_path / "other", sessions=0)
    for platforms in ((), ("cpu", "abacus")):
        with pytest.raises(ConvertError, match="platforms = "):
            stablehlo.export_stablehlo(run, tmp_path / "other", platforms=platforms)
    with pytest.raises(CheckpointError, match="nowhere"):
        stablehlo.export_stablehlo(tmp_path / "nowhere", tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "new.part"]
    assert (tmp_path / "full" / "notes.txt").read_text() == (tmp_path / "new.part" / "notes.txt").read_text() == "mine"


def test_a_failed_export_leaves_nothing_and_an_interrupted_one_is_begun_anew(run, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    def write(work, *_):
        assert not list(work.iterdir())
        for name in (stablehlo.START, stablehlo.MICRO_TURN):
            (work / name).write_bytes(b"")
        return {}

    monkeypatch.setattr(stablehlo, "_write_functions", fail)
    with pytest.raises(OSError, match="disk full"):
        stablehlo.export_stablehlo(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(stablehlo, "_write_functions", write)
    (tmp_path / "out").mkdir()
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "weights.safetensors.part").write_text("half")
    stablehlo.export_stablehlo(run, tmp_path / "out", log=lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(stablehlo._FILES)


COMPILE = """
import pathlib, sys
import jax
from jax import export
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

exported = export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes()))
device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
place = SingleDeviceSharding(device)
shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place) for array in exported.in_avals]
arguments, _ = jax.tree.unflatten(exported.in_tree, shapes)
step = jax.jit(exported.call, donate_argnums=0)
memory = step.trace(*arguments).lower(lowering_platforms=("tpu",)).compile().memory_analysis()
print(device.device_kind, memory.argument_size_in_bytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (in the test extra)")
def test_the_program_compiles_for_a_tpu(exported, tmp_path, monkeypatch):
    for name, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_WORKER_HOSTNAMES", "localhost")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    process = start_without_the_project(tmp_path, "-c", COMPILE, str(exported[0] / "micro_turn.jax_export"))
    printed = output_of(process)
    kind, size = printed.splitlines()[-1].rsplit(" ", 1)
    weights = (exported[0] / "weights.safetensors").stat().st_size
    assert kind == "TPU v5 lite" and int(size) > 0.9 * weights
