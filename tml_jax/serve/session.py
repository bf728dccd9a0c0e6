"""Sessions: live input cut into micro-turns, streamed through the model, decoded into words and sound."""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tml_jax.config import (
    AUDIO_ELEMENTS,
    MEL_BINS,
    MICRO_TURN_SECONDS,
    OWN_FRAMES,
    PATCH,
    Config,
    MeshConfig,
    ServeConfig,
)
from tml_jax.data.elements import Elements, input_elements, patches_of_pair
from tml_jax.data.layout import INPUT_SAMPLES, control_token, text_in_tokens
from tml_jax.data.record import Text
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel
from tml_jax.model.stream import InputBlock, StreamState, init_state, micro_turn
from tml_jax.parallel.mesh import abstract, make_mesh, parameter_shardings, stream_shardings
from tml_jax.parallel.placement import Placement
from tml_jax.serve.weights import weights_for_serving
from tml_jax.signal.mel import HISTORY, dmel
from tml_jax.signal.vocoder import VocoderState, init_vocoder, vocode
from tml_jax.tokens import Control
from tml_jax.train.checkpoint import find_checkpoint, read_config, restore_params_for_inference, saved_model

MAX_BYTES = 4  # of a character in UTF-8, so most tokens that one character can be made of


class NotFiniteError(RuntimeError):
    """The model put out something that is no number: says when, and what that means."""


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
    """

    index: int
    start: float
    gate: str
    text: str
    display: str
    mel: np.ndarray
    samples: np.ndarray
    compute_seconds: float


@dataclasses.dataclass(frozen=True)
class Arrived:
    """What arrived in one 200 ms window.

    Attributes:
      audio: (3200,) float32 at 16 kHz, or None where the session has no microphone.
      frames: frames of the window, (seconds since its start, (rows, columns, 3) uint8), in order.
      texts: typed text and background results of the window.
    """

    audio: np.ndarray | None
    frames: Sequence[tuple[float, np.ndarray]] = ()
    texts: Sequence[Text] = ()


@dataclasses.dataclass(frozen=True)
class Ear:
    """What the input side of a session carries: text still waiting, the last frame, the last samples."""

    waiting: tuple[int, ...] = ()
    frame: np.ndarray | None = None
    samples: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(HISTORY, np.float32))


def take_in(ear: Ear, arrived: Arrived, tokenizer: Tokenizer, config: Config) -> tuple[Ear, Elements]:
    """The input elements of one micro-turn, the same that training made of the same conversation.

    Args:
      ear: state of the input side.
      arrived: what came in.
      tokenizer: of the text.
      config: grid of the frames and most text of a micro-turn.

    Returns:
      The new state, and the elements.

    Raises:
      ValueError: audio or frames have the wrong shape.
    """
    waiting = list(ear.waiting)
    for text in arrived.texts:
        waiting += text_in_tokens(text.speaker, text.text, tokenizer, config.model)
    now, later = waiting[: config.serve.max_text_in], waiting[config.serve.max_text_in :]

    patches, last = None, ear.frame
    if arrived.frames:
        expected = (config.data.video_grid[0] * PATCH[1], config.data.video_grid[1] * PATCH[2], PATCH[3])
        for _, frame in arrived.frames:
            if frame.shape != expected:
                raise ValueError(f"frame of shape {frame.shape}: the model sees {expected}, scale it")
        early = [frame for offset, frame in arrived.frames if round(offset, 6) < MICRO_TURN_SECONDS / 2]
        first = early[-1] if early else (ear.frame if ear.frame is not None else arrived.frames[0][1])
        last = arrived.frames[-1][1]
        patches = patches_of_pair(first, last)

    levels, samples = None, ear.samples
    if arrived.audio is not None:
        if arrived.audio.shape != (INPUT_SAMPLES,):
            raise ValueError(f"audio of shape {arrived.audio.shape}: a micro-turn takes ({INPUT_SAMPLES},)")
        levels = dmel(arrived.audio.astype(np.float32), ear.samples)
        samples = arrived.audio[-HISTORY:].astype(np.float32)
    return Ear(tuple(later), last, samples), input_elements(now, patches, levels, config.model)


def make_block(inputs: Sequence[Elements], config: Config) -> InputBlock:
    """Inputs of B sessions as one padded block, of the smallest of the few shapes that holds them all."""
    grid = config.data.video_grid[0] * config.data.video_grid[1]
    sizes = block_sizes(config)
    seen = any(len(elements.video) for elements in inputs)  # the smallest block has no room for a frame
    length = next(size for size in sizes[seen:] if size >= max(len(elements.stream) for elements in inputs))
    batch = len(inputs)
    stream = np.zeros((batch, length), np.int8)
    token, slot = np.zeros((2, batch, length), np.int32)
    audio = np.zeros((batch, AUDIO_ELEMENTS, MEL_BINS), np.uint8)
    video = np.zeros((batch, 0 if length == sizes[0] else grid, *PATCH), np.uint8)
    for row, elements in enumerate(inputs):
        count = len(elements.stream)
        stream[row, :count], token[row, :count], slot[row, :count] = elements.stream, elements.token, elements.slot
        audio[row, : len(elements.audio_in)] = elements.audio_in
        video[row, : len(elements.video)] = elements.video
    silent = np.zeros((batch, 0, OWN_FRAMES, MEL_BINS), np.float32)
    valid = np.asarray([len(elements.stream) for elements in inputs], np.int32)
    return InputBlock(ElementArrays(stream, token, slot, audio, video, silent), valid)


def block_sizes(config: Config) -> tuple[int, ...]:
    """The few lengths of input blocks: time and audio; those and a frame; those and text."""
    grid = config.data.video_grid[0] * config.data.video_grid[1]
    bare = 1 + AUDIO_ELEMENTS
    return bare, bare + grid, bare + grid + config.serve.max_text_in


@flax.struct.dataclass
class Sessions:
    """Device state of B sessions: the model's and the vocoder's."""

    stream: StreamState
    vocoder: VocoderState


def _kept(variables: dict[str, Any], config: ServeConfig, mesh: Mesh | None) -> dict[str, Any]:
    """`weights_for_serving`, on the devices where they are."""
    if config.dtype == "float32" and config.weights == "whole":
        return variables
    convert = functools.partial(weights_for_serving, config=config)
    where = None if mesh is None else parameter_shardings(mesh, jax.eval_shape(convert, variables))
    return jax.jit(convert, out_shardings=where)(variables)


class Talker:
    """A model that talks. Sessions that are talked through together do not influence each other."""

    def __init__(self, checkpoint: str, seed: int = 0, step: int | None = None, weights: str | None = None) -> None:
        """Loads a trained model, over the devices of the configuration's `serve.mesh`.

        Args:
          checkpoint: folder of a run, or of one of its checkpoints.
          seed: of the noise from which the sound is made.
          step: which checkpoint; None takes the newest.
          weights: `whole` or `int8`, in place of `serve.weights`.

        Raises:
          CheckpointError: there is no such checkpoint, or it is damaged.
          ConfigError: `serve.mesh` does not fit the devices.
        """
        run_dir, folder = find_checkpoint(checkpoint, step)
        mesh, where = read_config(run_dir).serve.mesh, None
        mesh = None if mesh == MeshConfig() else make_mesh(mesh)
        if mesh is not None:  # every device reads its own part alone
            saved = saved_model(folder)
            where = abstract(saved, parameter_shardings(mesh, saved))
        config, tokenizer, variables = restore_params_for_inference(folder, None, where)
        if weights is not None:
            config = dataclasses.replace(config, serve=dataclasses.replace(config.serve, weights=weights))
        self._set(config, Tokenizer.load(tokenizer), variables, seed, mesh)

    @classmethod
    def of(cls, config: Config, tokenizer: Tokenizer, variables: dict[str, Any], seed: int = 0) -> "Talker":
        """A talker from parts in memory."""
        talker = cls.__new__(cls)
        talker._set(config, tokenizer, variables, seed)
        return talker

    def _set(
        self, config: Config, tokenizer: Tokenizer, variables: dict[str, Any], seed: int, mesh: Mesh | None = None
    ) -> None:
        self.config, self.tokenizer, self.seed, self._mesh = config, tokenizer, seed, mesh
        variables = jax.device_put(variables) if mesh is None else variables
        self.variables = _kept(variables, config.serve, mesh)
        placement = None if mesh is None else Placement(mesh, "whole", batch_axes=())
        model = InteractionModel(config.model, jnp.dtype(config.serve.dtype), placement=placement)
        context = config.serve.context

        def step(variables: dict[str, Any], sessions: Sessions, block: InputBlock) -> tuple:
            stream, output = micro_turn(model, variables, sessions.stream, block, context)
            vocoder, samples = vocode(sessions.vocoder, output.mel)
            sessions = Sessions(stream, vocoder)
            if mesh is not None:  # as it came in, or the next step would be compiled anew
                rows = len(output.count)
                sessions = jax.lax.with_sharding_constraint(sessions, stream_shardings(mesh, sessions, rows))
            return sessions, output, samples

        self._step = jax.jit(step, donate_argnums=1)

    def start(self, seeds: Sequence[int]) -> Sessions:
        """Empty sessions, one for each seed."""
        config = self.config
        block, dtype = block_sizes(config)[-1], jnp.dtype(config.serve.dtype)
        stream = init_state(config.model, jnp.asarray(seeds), config.serve.context, block, dtype)
        sessions = Sessions(stream, init_vocoder((len(seeds),)))
        if self._mesh is not None:
            return jax.device_put(sessions, stream_shardings(self._mesh, sessions, len(seeds)))
        # On the model's device for good: the state that a step returns is, and another kind would compile again.
        return jax.device_put(sessions, next(iter(jax.tree.leaves(self.variables)[0].devices())))

    def warm_up(self, sessions: int = 1) -> None:
        """Compiles the step for every shape of input, so that no micro-turn of a conversation waits for it.

        Args:
          sessions: how many will be talked through together.
        """
        state = self.start([0] * sessions)
        for size in block_sizes(self.config):
            elements = input_elements([0] * (size - 1), None, None, self.config.model)
            block = make_block([elements] * sessions, self.config)
            state, output, _ = self._step(self.variables, state, block)
            jax.block_until_ready(output)

    def talk(
        self,
        user_audio: np.ndarray | None,
        frames: Sequence[tuple[float, np.ndarray]] = (),
        texts: Sequence[Text] = (),
        micro_turns: int | None = None,
    ) -> Iterator[MicroTurn]:
        """Streams one conversation, 200 ms at a time; nothing is looked at before its time.

        Args:
          user_audio: (n,) float32 at 16 kHz, or None where there is no microphone.
          frames: (seconds, (rows, columns, 3) uint8), by time.
          texts: typed text and background results, by time.
          micro_turns: how many to run; by default as many as the audio fills.

        Yields:
          What the model puts out.
        """
        if micro_turns is None:
            if user_audio is None:
                raise ValueError("without user_audio, say how many micro_turns to run")
            micro_turns = -(-len(user_audio) // INPUT_SAMPLES)
        windows = arrivals(user_audio, frames, texts, micro_turns)
        for turns in self.talk_together([windows], [self.seed]):
            yield turns[0]

    def talk_together(self, sessions: Sequence[Iterator[Arrived]], seeds: Sequence[int]) -> Iterator[list[MicroTurn]]:
        """Streams several sessions of the same length side by side.

        Args:
          sessions: what arrives in each, window by window.
          seeds: of each session's noise.

        Yields:
          The micro-turns of all sessions.

        Raises:
          NotFiniteError: the model's numbers are not finite.
        """
        state = self.start(seeds)
        ears, mouths = [Ear()] * len(seeds), [_Mouth(self.tokenizer, self.config) for _ in seeds]
        for index, windows in enumerate(zip(*sessions, strict=True)):
            began = time.perf_counter()
            taken = [take_in(ear, window, self.tokenizer, self.config) for ear, window in zip(ears, windows)]
            ears = [ear for ear, _ in taken]
            block = make_block([elements for _, elements in taken], self.config)
            state, output, samples = self._step(self.variables, state, block)
            output, samples = jax.device_get((output, samples))
            if not output.finite.all():
                raise NotFiniteError(
                    f"micro-turn {index}: the model's logits or mel are not finite; its weights are damaged, or "
                    "come from a training that diverged: take another checkpoint"
                )
            took = time.perf_counter() - began
            turns = []
            for row, mouth in enumerate(mouths):
                text, display = mouth.words(output.token[row, : output.count[row]].tolist())
                gate = "SPEAK" if output.speak[row] else "LISTEN"
                start = round(index * MICRO_TURN_SECONDS, 6)
                turns.append(MicroTurn(index, start, gate, text, display, output.mel[row], samples[row], took))
            yield turns


def arrivals(
    user_audio: np.ndarray | None,
    frames: Sequence[tuple[float, np.ndarray]],
    texts: Sequence[Text],
    micro_turns: int,
) -> Iterator[Arrived]:
    """Cuts a recording into what arrives in each window; audio past its end is silence."""
    window_of = lambda seconds: int(round(seconds / MICRO_TURN_SECONDS, 6))  # noqa: E731
    for index in range(micro_turns):
        audio = None
        if user_audio is not None:
            audio = user_audio[index * INPUT_SAMPLES : (index + 1) * INPUT_SAMPLES]
            audio = np.pad(audio, (0, INPUT_SAMPLES - len(audio)))
        start = index * MICRO_TURN_SECONDS
        yield Arrived(
            audio,
            [(seconds - start, frame) for seconds, frame in frames if window_of(seconds) == index],
            [text for text in texts if window_of(text.time) == index],
        )


class _Mouth:
    """Turns output tokens into spoken and shown text; a span, or a character, may go over several micro-turns."""

    def __init__(self, tokenizer: Tokenizer, config: Config) -> None:
        self._tokenizer = tokenizer
        self._open, self._close = (control_token(c, config.model) for c in (Control.DISPLAY, Control.END))
        self._showing = False
        self._said: list[int] = []  # tokens of characters that are not complete yet
        self._shown: list[int] = []

    def words(self, tokens: list[int]) -> tuple[str, str]:
        """Tokens before the gate of one micro-turn → (spoken, shown)."""
        for token in tokens:
            if token in (self._open, self._close):
                self._showing = token == self._open
            elif token < self._tokenizer.size:
                (self._shown if self._showing else self._said).append(token)
        said, self._said = self._complete(self._said)
        shown, self._shown = self._complete(self._shown)
        return said, shown

    def _complete(self, tokens: list[int]) -> tuple[str, list[int]]:
        """The text of `tokens`, and those at its end that are only the first bytes of a character."""
        for cut in range(min(len(tokens), MAX_BYTES - 1) + 1):
            text = self._tokenizer.decode(tokens[: len(tokens) - cut])
            if not text.endswith("\ufffd"):
                return text, tokens[len(tokens) - cut :]
        return self._tokenizer.decode(tokens), []
