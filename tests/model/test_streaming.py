"""Streaming gives what the packed pass gives, for every mix of streams, and sessions do not touch each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SMALL

from tml_jax.config import PackingConfig
from tml_jax.data.elements import Elements, input_elements
from tml_jax.data.packing import pack
from tml_jax.model.attention import Packed
from tml_jax.model.backbone import unstacked
from tml_jax.model.flow import denormalise
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel
from tml_jax.model.portions import Portions
from tml_jax.model.stream import NOT_SAID, InputBlock, choose_token, flow_noise, init_state, micro_turn
from tml_jax.tokens import Control, Stream

BLOCK = 1 + 3 + 2 + 4  # most input elements of a micro-turn
CONTEXT = 400
TURNS = 16
SEEDS = (5, 6, 7)
MIXES = ("audio", "text", "video", "audio+text", "audio+video", "text+video", "audio+text+video", "nothing")
FIRST = SMALL.text_vocab_size  # of the control tokens
PACKING = PackingConfig(
    elements=320, audio_in=4 * TURNS, video=2 * TURNS, audio_out=4 * TURNS, outputs=4 * TURNS, segments=1
)


def random_session(mix: str, seed: int) -> list[Elements]:
    """Input of every micro-turn: text, patches and sound, by what `mix` names; text and patches come and go."""
    rng = np.random.default_rng(seed)
    turns = []
    for _ in range(TURNS):
        text = rng.integers(0, FIRST, rng.integers(0, 4)).tolist() if "text" in mix else []
        patches = rng.integers(0, 256, (rng.integers(0, 3), 2, 40, 40, 3), np.uint8) if "video" in mix else None
        levels = rng.integers(0, 16, (4, 80), np.uint8) if "audio" in mix else None
        turns.append(input_elements(text, patches, levels, SMALL))
    return turns


def padded(x: np.ndarray, size: int) -> np.ndarray:
    return np.pad(x, [(0, size - len(x))] + [(0, 0)] * (x.ndim - 1))


def block_of(turns: list[Elements]) -> InputBlock:
    """One micro-turn of several sessions."""
    stack = lambda name, size: np.stack([padded(getattr(turn, name), size) for turn in turns])  # noqa: E731
    silent = np.zeros((len(turns), 0, 5, 80), np.float32)
    sides = stack("audio_in", 4), stack("video", 2), silent
    elements = ElementArrays(stack("stream", BLOCK), stack("token", BLOCK), stack("slot", BLOCK), *sides)
    return InputBlock(elements, np.asarray([len(turn.stream) for turn in turns], np.int32))


@pytest.fixture(scope="module", params=[None, Portions(elements=4, sessions=2)], ids=["at once", "in portions"])
def stream(request, small_model, small_variables):
    """Streams sessions together; returns (token, count, speak, mel) of each, micro-turns first."""
    whole, given = request.param is None, {"context": CONTEXT, "portions": request.param}
    model = small_model if whole else InteractionModel(SMALL, scanned=False)
    variables = small_variables if whole else unstacked(small_variables, SMALL)
    step = jax.jit(lambda variables, state, block: micro_turn(model, variables, state, block, **given))

    def run(sessions, seeds):
        state = init_state(SMALL, jnp.asarray(seeds), CONTEXT, BLOCK, scanned=whole)
        outputs = []
        for turns in zip(*sessions, strict=True):
            state, output = step(variables, state, block_of(turns))
            outputs.append(jax.device_get(output))
        stacked = jax.tree.map(lambda *x: np.stack(x), *outputs)
        return [jax.tree.map(lambda x, row=row: x[:, row], stacked) for row in range(len(seeds))]

    return run


@pytest.fixture(scope="module")
def run_packed(small_model):
    """Logits before every output token and mel of every audio element, of whole conversations at once."""

    def run(variables, batch, noise):
        elements = ElementArrays(batch.stream, batch.token, batch.slot, batch.audio_in, batch.video, batch.audio_out)
        hidden, _ = small_model.apply(variables, elements, Packed(batch.segment, batch.position))
        at = lambda place: jnp.take_along_axis(hidden, jnp.maximum(place, 0)[..., None], axis=1)  # noqa: E731
        logits = small_model.apply(variables, at(batch.output_from), method="logits")
        return logits, denormalise(small_model.apply(variables, noise, at(batch.audio_out_from), method="mel"))

    return jax.jit(run)


def conversation(inputs: list[Elements], outputs) -> Elements:
    """Input and output of a session as one sequence, the way training sees it."""
    parts = []
    for turn, given in enumerate(inputs):
        said = outputs.token[turn, : outputs.count[turn]].tolist()
        speaks = bool(outputs.speak[turn])
        own = [Stream.TEXT_OUT] * len(said) + [Stream.GATE] + [Stream.AUDIO_OUT] * (4 * speaks)
        tokens = [*said, FIRST + (Control.SPEAK if speaks else Control.LISTEN)] + [0] * (4 * speaks)
        parts.append((np.r_[given.stream, own], np.r_[given.token, tokens]))
    stream, token = (np.concatenate(column) for column in zip(*parts))
    slot = np.zeros(stream.size, np.int32)
    for kind in (Stream.AUDIO_IN, Stream.VIDEO, Stream.AUDIO_OUT):
        slot[stream == kind] = np.arange(np.sum(stream == kind))
    sides = [np.concatenate([getattr(turn, name) for turn in inputs]) for name in ("audio_in", "video")]
    mel = outputs.mel[outputs.speak].reshape(-1, 5, 80)
    turns = np.cumsum(stream == Stream.TIME) - 1
    return Elements(stream.astype(np.int8), token.astype(np.int32), slot, turns, *sides, mel)


def chosen(logits: np.ndarray, said: int) -> int:
    """What comes after `said` tokens of a micro-turn: LISTEN if likelier than all else together, else the likeliest."""
    listen, speak = FIRST + Control.LISTEN, FIRST + Control.SPEAK
    allowed = np.setdiff1d(np.arange(logits.size), FIRST + np.asarray(NOT_SAID))
    if said == SMALL.max_text_out:
        allowed = np.asarray([listen, speak])
    score = np.exp(np.float64(logits[allowed]) - logits[allowed].max())
    if score[allowed == listen] > score[allowed != listen].sum():
        return listen
    others = allowed[allowed != listen]
    return others[np.argmax(logits[others])]


@pytest.fixture(scope="module")
def streamed(stream):
    """Every mix, three sessions at a time: mix → sessions and their outputs."""
    sessions = {mix: [random_session(mix, 10 * i + row) for row in range(3)] for i, mix in enumerate(MIXES)}
    return {mix: (inputs, stream(inputs, SEEDS)) for mix, inputs in sessions.items()}


@pytest.mark.parametrize("mix", MIXES)
def test_streaming_gives_what_the_packed_pass_gives(small_variables, streamed, run_packed, mix):
    sessions, outputs = streamed[mix]
    whole = [conversation(*pair) for pair in zip(sessions, outputs)]
    batch = pack([[elements] for elements in whole], [[row] for row in range(3)], PACKING)
    noise = np.zeros((3, PACKING.audio_out, 400), np.float32)
    for row, seed in enumerate(SEEDS):
        raw = jnp.broadcast_to(jax.random.key_data(jax.random.key(seed)), (TURNS, 2))
        drawn = np.asarray(flow_noise(raw, jnp.arange(TURNS), SMALL.flow_temperature))[outputs[row].speak]
        noise[row, : drawn.shape[0] * 4] = drawn.reshape(-1, 400)
    logits, mel = jax.device_get(run_packed(small_variables, batch, noise))
    for row, elements in enumerate(whole):
        assert elements.stream.size > 3 * (SMALL.window + BLOCK)  # the rings of sliding layers go round
        said, spoken = 0, len(elements.audio_out)
        for index in range(np.sum(batch.output_from[row] >= 0)):
            token = batch.output_token[row, index]
            assert token == chosen(logits[row, index], said)
            is_gate = elements.stream[batch.output_from[row, index] + 1] == Stream.GATE
            said = 0 if is_gate else said + 1
        np.testing.assert_allclose(mel[row, :spoken], elements.audio_out, rtol=0, atol=1e-4)


def test_the_sessions_compared_say_and_do_everything(streamed):
    outputs = [output for _, outputs in streamed.values() for output in outputs]
    speak, count = (np.concatenate([getattr(output, name) for output in outputs]) for name in ("speak", "count"))
    tokens = np.concatenate([output.token[i, :n] for output in outputs for i, n in enumerate(output.count)])
    assert 0.1 < speak.mean() < 0.9
    assert set(count) == set(range(SMALL.max_text_out + 1))
    assert {FIRST + Control.DISPLAY, FIRST + Control.END} < set(tokens) and np.any(tokens < FIRST)
    assert not set(tokens) & {FIRST + control for control in NOT_SAID}
    lengths = [len(turn.stream) for sessions, _ in streamed.values() for turns in sessions for turn in turns]
    assert set(lengths) >= {1, BLOCK}  # from nothing at all to a full block


def test_silence_is_at_the_floor_and_empty_places_hold_no_token(streamed):
    for _, outputs in streamed.values():
        for output in outputs:
            assert np.all(output.mel[~output.speak] == -5.0)
            assert output.mel[output.speak].std() > 0.1
            assert not output.token[np.arange(SMALL.max_text_out) >= output.count[:, None]].any()


def test_a_session_gives_the_same_bits_whatever_runs_beside_it(stream):
    """At one number of sessions; with another number XLA orders sums differently, see tests/serve/test_session.py."""
    sessions = [random_session(mix, 90 + row) for row, mix in enumerate(("audio+text+video", "nothing", "audio"))]
    first = stream(sessions, SEEDS)
    others = [random_session("text", 95), random_session("audio+video", 96)]
    for row, place in enumerate((2, 0, 1)):
        beside = others[:place] + [sessions[row]] + others[place:]
        seeds = [8] * place + [SEEDS[row]] + [9] * (2 - place)
        jax.tree.map(np.testing.assert_array_equal, stream(beside, seeds)[place], first[row])


def test_the_seed_decides_the_sound_and_nothing_else_before_it_is_heard(stream):
    session = random_session("audio", 3)
    first, second, third = stream([session] * 3, [1, 1, 2])
    jax.tree.map(np.testing.assert_array_equal, first, second)
    begins = int(np.argmax(first.speak))
    assert first.speak[begins] and np.array_equal(first.token[: begins + 1], third.token[: begins + 1])
    assert np.abs(first.mel[begins] - third.mel[begins]).max() > 0.1


@pytest.mark.parametrize(
    ("likely", "said", "expected"),
    [
        ({Control.LISTEN: 0.51, 7: 0.48}, 0, Control.LISTEN),
        ({Control.LISTEN: 0.48, 7: 0.3, 8: 0.21}, 0, 7 - FIRST),  # likelier than any, but not than all
        ({Control.LISTEN: 0.3, Control.SPEAK: 0.4, 7: 0.29}, 1, Control.SPEAK),
        ({Control.TIME: 0.9, Control.LISTEN: 0.04, 7: 0.05}, 0, 7 - FIRST),  # what is never said does not count
        ({7: 0.9, Control.LISTEN: 0.06, Control.SPEAK: 0.03}, SMALL.max_text_out, Control.LISTEN),
        ({7: 0.9, Control.LISTEN: 0.03, Control.SPEAK: 0.06}, SMALL.max_text_out, Control.SPEAK),
    ],
)
def test_silence_is_chosen_where_it_is_likelier_than_everything_else_together(likely, said, expected):
    probability = np.full(SMALL.logits_size, 0.01 / SMALL.logits_size, np.float32)
    for token, share in likely.items():
        probability[token + FIRST if isinstance(token, Control) else token] = share
    token = choose_token(jnp.log(probability)[None], jnp.asarray([said]), SMALL)
    assert token[0] == FIRST + expected and chosen(np.log(probability), said) == token[0]


def test_a_task_may_be_handed_over_only_where_somebody_takes_it():
    logits = jnp.zeros((1, SMALL.logits_size)).at[0, FIRST + Control.DELEGATE].set(9.0)
    nothing_said = jnp.asarray([0])
    assert choose_token(logits, nothing_said, SMALL)[0] != FIRST + Control.DELEGATE
    assert choose_token(logits, nothing_said, SMALL, delegate=True)[0] == FIRST + Control.DELEGATE
    for barred in set(NOT_SAID) - {Control.DELEGATE}:
        logits = jnp.zeros((1, SMALL.logits_size)).at[0, FIRST + barred].set(9.0)
        assert choose_token(logits, nothing_said, SMALL, delegate=True)[0] != FIRST + barred
