"""Streaming equals the packed pass, and no output depends on later input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.model.attention import Packed
from tml_jax.model.flow import denormalise, normalise
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.stream import NOT_SAID, InputBlock, flow_noise, init_state, micro_turn
from tml_jax.tokens import Control, Stream

BLOCK = 1 + 3 + 2 + 4  # most input elements of a micro-turn
CONTEXT = 400
TURNS = 20
MIXES = ("audio", "audio+text", "audio+video", "video", "text", "audio+video+text", "nothing")


def random_inputs(config, mix: str, turns: int, seed: int) -> list[dict]:
    """Input of every micro-turn: text tokens, video patches and audio levels, by what `mix` names."""
    rng = np.random.default_rng(seed)
    inputs = []
    for _ in range(turns):
        text = rng.integers(0, config.text_vocab_size, rng.integers(0, 4)) if "text" in mix else []
        patches = rng.integers(0, 256, (rng.integers(0, 3), 2, 40, 40, 3)) if "video" in mix else np.zeros((0, 2, 40, 40, 3))
        levels = rng.integers(0, 16, (4, 80)) if "audio" in mix else np.zeros((0, 80))
        inputs.append({"text": list(text), "video": patches.astype(np.uint8), "audio": levels.astype(np.uint8)})
    return inputs


def sequence_of(turn: dict, config) -> list[tuple]:
    """(stream, token, slot) of the input elements of one micro-turn."""
    return (
        [(Stream.TIME, config.text_vocab_size + Control.TIME, 0)]
        + [(Stream.TEXT_IN, token, 0) for token in turn["text"]]
        + [(Stream.VIDEO, 0, slot) for slot in range(len(turn["video"]))]
        + [(Stream.AUDIO_IN, 0, slot) for slot in range(len(turn["audio"]))]
    )


def block_of(turns: list[dict], config) -> InputBlock:
    """One micro-turn of several sessions as a padded block."""
    arrays = {name: np.zeros((len(turns), BLOCK), np.int32) for name in ("stream", "token", "slot")}
    audio, video = np.zeros((len(turns), 4, 80), np.uint8), np.zeros((len(turns), 2, 2, 40, 40, 3), np.uint8)
    valid = np.zeros(len(turns), np.int32)
    for row, turn in enumerate(turns):
        sequence = sequence_of(turn, config)
        valid[row] = len(sequence)
        for column, element in enumerate(sequence):
            for name, value in zip(arrays, element):
                arrays[name][row, column] = value
        audio[row, : len(turn["audio"])], video[row, : len(turn["video"])] = turn["audio"], turn["video"]
    arrays["stream"] = arrays["stream"].astype(np.int8)
    empty = np.zeros((len(turns), 0, 5, 80), np.float32)
    return InputBlock(ElementArrays(**arrays, audio_in=audio, video=video, audio_out=empty), valid)


@pytest.fixture(scope="session")
def step(small_model):
    return jax.jit(lambda variables, state, block: micro_turn(small_model, variables, state, block, CONTEXT))


def stream(step, variables, config, sessions: list[list[dict]], seeds: list[int]) -> list:
    """Streams several sessions together; returns the output of every micro-turn."""
    state = init_state(config, jnp.asarray(seeds), CONTEXT, BLOCK)
    outputs = []
    for turns in zip(*sessions):
        state, output = step(variables, state, block_of(list(turns), config))
        outputs.append(jax.tree.map(np.asarray, output))
    return outputs


def packed_of(config, inputs: list[dict], outputs: list, row: int):
    """The whole conversation, inputs and outputs, as one sequence with its side arrays."""
    sequence, audio, video, own, turn_of = [], [], [], [], []
    for turn, output in zip(inputs, outputs):
        offset = {Stream.AUDIO_IN: len(audio), Stream.VIDEO: len(video)}
        part = [(s, token, slot + offset.get(s, 0)) for s, token, slot in sequence_of(turn, config)]
        audio.extend(turn["audio"])
        video.extend(turn["video"])
        part += [(Stream.TEXT_OUT, token, 0) for token in output.token[row, : output.count[row]]]
        gate = Control.SPEAK if output.speak[row] else Control.LISTEN
        part.append((Stream.GATE, config.text_vocab_size + gate, 0))
        if output.speak[row]:
            part += [(Stream.AUDIO_OUT, 0, len(own) + i) for i in range(4)]
            own.extend(output.mel[row].reshape(4, 5, 80))
        sequence += part
        turn_of += [len(turn_of) and turn_of[-1] + 1] * 0 + [0] * len(part)
    stream_, token, slot = (np.asarray(column)[None] for column in zip(*sequence))
    stack = lambda rows, shape, dtype: np.asarray(rows, dtype).reshape(1, -1, *shape)  # noqa: E731
    elements = ElementArrays(
        stream_.astype(np.int8), token.astype(np.int32), slot.astype(np.int32),
        stack(audio, (80,), np.uint8), stack(video, (2, 40, 40, 3), np.uint8), stack(own, (5, 80), np.float32),
    )  # fmt: skip
    position = np.arange(len(sequence), dtype=np.int32)[None]
    return elements, Packed(np.ones_like(position), position)


def check_equal(model, variables, config, inputs, outputs, row, seed) -> int:
    """Asserts that the packed pass gives the streamed gates, text and mel; returns the number of spoken turns."""
    elements, where = packed_of(config, inputs, outputs, row)
    hidden, _ = model.apply(variables, elements, where)
    logits = np.asarray(model.apply(variables, hidden, method="logits"))[0]
    streams, token = elements.stream[0], elements.token[0]
    raw = jax.random.key_data(jax.random.key(seed))[None]
    turn, element, spoken = -1, 0, 0
    for place in range(len(streams)):
        if streams[place] == Stream.TIME:
            turn, element, count = turn + 1, 0, 0
        if streams[place] in (Stream.TEXT_OUT, Stream.GATE):
            scores = logits[place - 1].copy()
            first = config.text_vocab_size
            if count < config.max_text_out:
                for control in NOT_SAID:
                    scores[first + control] = -np.inf
            else:
                gates = scores[[first + Control.LISTEN, first + Control.SPEAK]].copy()
                scores[:] = -np.inf
                scores[[first + Control.LISTEN, first + Control.SPEAK]] = gates
            assert np.argmax(scores) == token[place]
            count += 1
        if streams[place] == Stream.AUDIO_OUT:
            noise = flow_noise(raw, jnp.asarray([turn]), config.flow_temperature)[0, element]
            mel = model.apply(variables, noise, hidden[0, place - 1], method="mel")
            streamed = normalise(jnp.asarray(outputs[turn].mel[row].reshape(4, 5, 80)[element]))
            mel = normalise(denormalise(mel))
            np.testing.assert_allclose(mel, streamed, rtol=1e-4, atol=1e-4)
            element, spoken = element + 1, spoken + 1
    return spoken


@pytest.mark.parametrize("mix", MIXES)
def test_streaming_gives_what_the_packed_pass_gives(small_model, small_variables, step, mix):
    config = small_model.config
    sessions = [random_inputs(config, mix, TURNS, seed) for seed in (1, 2)]
    outputs = stream(step, small_variables, config, sessions, [5, 6])
    for row, seed in enumerate((5, 6)):
        check_equal(small_model, small_variables, config, sessions[row], outputs, row, seed)
