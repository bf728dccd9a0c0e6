"""Conversations from arrays: input cut into micro-turns, streamed through the model, decoded into words and sound."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from tml_jax.background.desk import Desk
from tml_jax.config import Config
from tml_jax.data.elements import input_elements
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.data.record import Text
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.serve.program import LoadedModel, Program, load_model
from tml_jax.serve.windows import Arrived, Ear, arrivals, block_sizes, make_block, take_in
from tml_jax.serve.words import MicroTurn, Mouth, micro_turn_of_row


class NotFiniteError(RuntimeError):
    """The model put out something that is no number: says when, and what that means."""


class Talker:
    """A model that talks. Sessions that are talked through together do not influence each other."""

    def __init__(
        self,
        checkpoint: str,
        seed: int = 0,
        step: int | None = None,
        weights: str | None = None,
        delegate: bool = False,
    ) -> None:
        """Loads a trained model, over the devices of the configuration's `serve.mesh`.

        Args:
          checkpoint: folder of a run, or of one of its checkpoints.
          seed: of the noise from which the sound is made.
          step: which checkpoint; None takes the newest.
          weights: `whole` or `int8`, in place of `serve.weights`.
          delegate: whether it may hand over tasks.

        Raises:
          CheckpointError: there is no such checkpoint, or it is damaged.
          ConfigError: `serve.mesh` does not fit the devices.
        """
        self._set(load_model(checkpoint, step, weights, delegate), seed)

    @classmethod
    def of(cls, config: Config, tokenizer: Tokenizer, variables: dict[str, Any], seed: int = 0) -> "Talker":
        """A talker from parts in memory."""
        talker = cls.__new__(cls)
        talker._set(LoadedModel(config, tokenizer, variables), seed)
        return talker

    def _set(self, loaded: LoadedModel, seed: int) -> None:
        self.config, self.tokenizer, self.seed = loaded.config, loaded.tokenizer, seed
        self.program = Program(loaded)

    @property
    def variables(self) -> dict[str, Any]:
        """Parameters and router biases, on their devices."""
        return self.program.variables

    def warm_up(self, sessions: int = 1) -> None:
        """Compiles the step for every shape of input, so that no micro-turn of a conversation waits for it.

        Args:
          sessions: how many will be talked through together.
        """
        state = self.program.start([0] * sessions)
        for size in block_sizes(self.config):
            elements = input_elements([0] * (size - 1), None, None, self.config.model)
            block = make_block([elements] * sessions, self.config)
            state, output, _ = self.program.step(state, block)
            jax.block_until_ready(output)

    def talk(
        self,
        user_audio: np.ndarray | None,
        frames: Sequence[tuple[float, np.ndarray]] = (),
        texts: Sequence[Text] = (),
        micro_turns: int | None = None,
        desk: Desk | None = None,
    ) -> Iterator[MicroTurn]:
        """Streams one conversation, 200 ms at a time; nothing is looked at before its time.

        Args:
          user_audio: (n,) float32 at 16 kHz, or None where there is no microphone.
          frames: (seconds, (rows, columns, 3) uint8), by time.
          texts: typed text and background results, by time.
          micro_turns: how many to run; by default as many as the audio fills.
          desk: of the session's tasks, where the model may hand them over; it is told of the end.

        Yields:
          What the model puts out.
        """
        if micro_turns is None:
            if user_audio is None:
                raise ValueError("without user_audio, say how many micro_turns to run")
            micro_turns = -(-len(user_audio) // INPUT_SAMPLES)
        windows = arrivals(user_audio, frames, texts, micro_turns)
        if desk is not None:
            windows = map(desk.take_in, windows)
        mouth = Mouth(self.tokenizer, self.config)
        try:
            for turns in self.talk_together([windows], [self.seed], [mouth]):
                yield turns[0] if desk is None else desk.put_out(turns[0])
        finally:
            if desk is not None:
                desk.end(mouth.left())

    def talk_together(
        self, sessions: Sequence[Iterator[Arrived]], seeds: Sequence[int], mouths: Sequence[Mouth] | None = None
    ) -> Iterator[list[MicroTurn]]:
        """Streams several sessions of the same length side by side.

        Args:
          sessions: what arrives in each, window by window.
          seeds: of each session's noise.
          mouths: of each, for those who want to know what is left in them; None for new ones.

        Yields:
          The micro-turns of all sessions.

        Raises:
          NotFiniteError: the model's numbers are not finite.
        """
        state = self.program.start(seeds)
        ears = [Ear()] * len(seeds)
        mouths = mouths or [Mouth(self.tokenizer, self.config) for _ in seeds]
        for index, windows in enumerate(zip(*sessions, strict=True)):
            began = time.perf_counter()
            taken = [take_in(ear, window, self.tokenizer, self.config) for ear, window in zip(ears, windows)]
            ears = [ear for ear, _ in taken]
            block = make_block([elements for _, elements in taken], self.config)
            state, output, samples = self.program.step(state, block)
            output, samples = jax.device_get((output, samples))
            if not output.finite.all():
                raise NotFiniteError(
                    f"micro-turn {index}: the model's logits or mel are not finite; its weights are damaged, or "
                    "come from a training that diverged: take another checkpoint"
                )
            took = time.perf_counter() - began
            given = block.valid, output, samples
            yield [micro_turn_of_row(index, row, *given, mouth, took) for row, mouth in enumerate(mouths)]
