"""The exported graphs, run by onnxruntime, give the numbers of the JAX functions."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import onnxruntime
import pytest
import soxr
from small import SMALL, small_config
from trained_run import make_run

from tml_jax.config import PATCH
from tml_jax.data.layout import control_token
from tml_jax.interop import to_onnx
from tml_jax.interop.journal import ConvertError
from tml_jax.interop.to_onnx import AUDIO_IN, AUDIO_OUT, FRAMES, MANIFEST, TEXT, VOCODER, export_onnx
from tml_jax.signal import mel, vocoder
from tml_jax.tokens import Control
from tml_jax.train.checkpoint import TOKENIZER, CheckpointError

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "mel_golden.npz"
GRAPHS = (AUDIO_IN, FRAMES, TEXT, AUDIO_OUT, VOCODER)


def silent(line: str) -> None:
    del line


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, small_variables):
    return make_run(tmp_path_factory.mktemp("onnx") / "run", small_config(), small_variables)


@pytest.fixture(scope="module")
def exported(run_dir):
    folder = run_dir.with_name("exported")
    export_onnx(run_dir, folder, log=silent)
    return folder


@pytest.fixture(scope="module")
def sessions(exported):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    load = lambda name: onnxruntime.InferenceSession(exported / name, options, providers=["CPUExecutionProvider"])  # noqa: E731
    return {name: load(name) for name in GRAPHS}


@pytest.fixture(scope="module")
def speech():
    """A micro-turn of silence and 14 of a reading, (48000,) float32 at 16 kHz."""
    with np.load(GOLDEN) as file:
        return np.pad(file["speech"][:44_800].astype(np.float32) / 32768, (3200, 0))


@pytest.fixture(scope="module")
def log_mel(speech):
    return mel.own_mel(soxr.resample(speech, 16_000, 24_000).astype(np.float32)[:72_000])


@pytest.fixture(scope="module")
def embed(small_model, small_variables):
    """Calls a method of InputEmbeddings."""

    def call(method, given):
        apply = lambda model, given: getattr(model.inputs, method)(given)  # noqa: E731
        return np.asarray(small_model.apply(small_variables, given, method=apply))

    return call


def assert_close(found, expected, tolerance=1e-5):
    assert found.shape == expected.shape and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_sound_of_a_stream_gives_the_levels_and_the_embeddings(sessions, embed, speech):
    windows = speech.reshape(-1, 3200)
    history = np.concatenate([np.zeros((1, 800), np.float32), windows[:-1, -800:]])
    made = [sessions[AUDIO_IN].run(None, {"samples": s, "history": h}) for s, h in zip(windows, history)]
    levels, embeddings = map(np.stack, zip(*made))
    expected = np.asarray(jax.jit(jax.vmap(mel.dmel_compiled))(windows, history))
    assert levels.dtype == np.uint8 and levels.shape == expected.shape
    # Another Fourier transform rounds otherwise, so a value in the middle between two levels may fall to the other.
    centres = np.linspace(mel.DMEL_MIN, mel.DMEL_MAX, 16)
    values = np.clip(mel.log_mel(speech), centres[0], centres[-1]).reshape(levels.shape)
    nearest = np.sort(np.abs(values[..., None] - centres), axis=-1)
    tied = nearest[..., 1] - nearest[..., 0] < 1e-4
    assert np.all((levels == expected) | tied) and np.sum(tied) < 5
    assert len(np.unique(levels)) > 8
    assert_close(embeddings, embed("heard", levels))


@pytest.mark.parametrize("patches", [1, 6])
def test_patches(sessions, embed, patches):
    pixels = np.random.default_rng(0).integers(-1, 256, (patches, *PATCH)).astype(np.int16)
    assert_close(sessions[FRAMES].run(None, {"pixels": pixels})[0], embed("seen", pixels))


def test_every_token(sessions, embed):
    tokens = np.arange(SMALL.logits_size)
    assert_close(sessions[TEXT].run(None, {"tokens": tokens})[0], embed("tokens", tokens))


def test_mel_of_the_own_voice(sessions, embed, log_mel):
    elements = log_mel.reshape(-1, 5, 80)
    assert_close(sessions[AUDIO_OUT].run(None, {"mel": elements})[0], embed("spoken", elements))


def vocode(session, state, log_mel):
    """A call of the graph in the manner of `vocoder.vocode`."""
    feed = {"mel": log_mel, "hops": np.asarray(state.hops), "magnitudes": np.asarray(state.magnitudes)}
    samples, hops, magnitudes = session.run(None, feed)
    return vocoder.VocoderState(hops, magnitudes), samples


def test_vocoder_frame_by_frame_from_the_same_state(sessions, log_mel):
    """Phase reconstruction is chaotic: after a micro-turn of 20 frames one bit is another waveform, in JAX, too."""
    state = vocoder.init_vocoder()
    for frame in range(len(log_mel)):
        rows = log_mel[frame : frame + 1]
        found, hop = vocode(sessions[VOCODER], state, rows)
        state, expected = vocoder.vocode(state, rows)
        peak = max(np.abs(state.hops).max(), 1e-3)
        np.testing.assert_allclose(hop, expected, rtol=0, atol=1e-4 * peak)
        np.testing.assert_allclose(found.hops, state.hops, rtol=0, atol=1e-3 * peak)
        np.testing.assert_allclose(found.magnitudes, state.magnitudes, rtol=1e-4, atol=1e-6)


def test_vocoder_streams_speech_as_near_to_its_mel_as_jax_does(sessions, log_mel):
    def stream(call):
        state, chunks = vocoder.init_vocoder(), []
        for start in range(0, len(log_mel), 20):
            state, samples = call(state, log_mel[start : start + 20])
            chunks.append(np.asarray(samples))
        assert all(chunk.shape == (4800,) and chunk.dtype == np.float32 for chunk in chunks)
        return np.concatenate(chunks)

    def distance(samples):
        return np.abs(mel.own_mel(samples) - log_mel)[log_mel > -4].mean()

    found, expected = stream(lambda *given: vocode(sessions[VOCODER], *given)), stream(vocoder.vocode)
    assert distance(found) < 1.05 * distance(expected)
    np.testing.assert_allclose(np.square(found).sum(), np.square(expected).sum(), rtol=0.05)


def test_vocoder_gives_the_same_bits_in_any_chunks_and_falls_silent(sessions, log_mel):
    quiet = np.full((10, 80), mel.SILENT_OWN_MEL, np.float32)
    rows = np.concatenate([log_mel[:25], quiet])
    state, whole = vocode(sessions[VOCODER], vocoder.init_vocoder(), rows)
    assert np.any(whole[: 25 * 240]) and not np.any(whole[28 * 240 :])
    carried, chunks = vocoder.init_vocoder(), []
    for first, end in ((0, 1), (1, 4), (4, 24), (24, 35)):
        carried, samples = vocode(sessions[VOCODER], carried, rows[first:end])
        chunks.append(samples)
    np.testing.assert_array_equal(np.concatenate(chunks), whole)
    jax.tree.map(np.testing.assert_array_equal, carried, state)


def test_the_manifest_says_what_the_graphs_take_and_give(exported, sessions):
    manifest = json.loads((exported / MANIFEST).read_text(encoding="utf-8"))
    types = {"float32": "tensor(float)", "uint8": "tensor(uint8)", "int64": "tensor(int64)", "int16": "tensor(int16)"}
    assert set(manifest["graphs"]) == set(GRAPHS)
    for name, graph in manifest["graphs"].items():
        for kind, values in (("inputs", sessions[name].get_inputs()), ("outputs", sessions[name].get_outputs())):
            described = {key: (value["shape"], types[value["dtype"]]) for key, value in graph[kind].items()}
            assert described == {value.name: (value.shape, value.type) for value in values}
            assert all(value["meaning"] for value in graph[kind].values())
    assert manifest["tokens"]["control"]["SPEAK"] == control_token(Control.SPEAK, SMALL)
    assert (exported / manifest["tokens"]["file"]).exists()
    assert {path.name for path in exported.iterdir()} == to_onnx._FILES


@pytest.mark.parametrize(
    "name, feed, message",
    [
        (AUDIO_IN, {"samples": np.zeros(3199, np.float32), "history": np.zeros(800, np.float32)}, "samples.*3199"),
        (AUDIO_IN, {"samples": np.zeros(3200), "history": np.zeros(800)}, "Unexpected input data type"),
        (FRAMES, {"pixels": np.zeros((1, 2, 40, 41, 3), np.int16)}, "pixels.*41"),
        (TEXT, {"tokens": np.asarray([SMALL.vocab_size])}, f"idx={SMALL.vocab_size} must be within"),
    ],
)  # fmt: skip
def test_wrong_input_is_refused_by_name(sessions, name, feed, message):
    with pytest.raises(Exception, match=f"(?s){message}"):
        sessions[name].run(None, feed)


def test_nothing_is_overwritten_and_a_failed_export_leaves_nothing(run_dir, exported, tmp_path, monkeypatch):
    with pytest.raises(ConvertError, match="exported holds something already"):
        export_onnx(run_dir, exported, log=silent)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        export_onnx(tmp_path / "nowhere", tmp_path / "out", log=silent)
    (tmp_path / "mine.part").mkdir()
    (tmp_path / "mine.part" / "thesis.tex").touch()
    with pytest.raises(ConvertError, match="mine.part is in the way"):
        export_onnx(run_dir, tmp_path / "mine", log=silent)
    monkeypatch.setattr(to_onnx, "TOKENIZER", "missing.json")
    with pytest.raises(FileNotFoundError):
        export_onnx(run_dir, tmp_path / "out", log=silent)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.part"]


def test_an_interrupted_export_is_begun_anew_and_the_command_runs_it(run_dir, exported, tmp_path):
    part = tmp_path / "out.part"
    part.mkdir()
    (part / TEXT).write_bytes(b"torn")
    command = [sys.executable, "-m", "launch.export", f"--checkpoint={run_dir}", "--format=onnx"]
    ended = subprocess.run([*command, f"--output={tmp_path / 'out'}"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert f"wrote {tmp_path / 'out'}" in ended.stdout
    for path in exported.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not part.exists() and (exported / TOKENIZER).exists()
