"""Streams conversations through a model as a session would be, 200 ms at a time, several side by side."""

from collections.abc import Iterator, Sequence

from tml_jax.background.desk import Desk
from tml_jax.data.layout import INPUT_SAMPLES, arrived_samples, fit_samples
from tml_jax.data.record import MODEL, Conversation
from tml_jax.eval.delegation import desk_of, rehearse
from tml_jax.eval.echo import Echo
from tml_jax.serve.session import Talker
from tml_jax.serve.windows import Arrived, arrivals
from tml_jax.serve.words import MicroTurn

TOGETHER = 32  # conversations streamed side by side


def stream(
    talker: Talker, conversations: Sequence[Conversation], desks: Sequence[Desk] | None = None
) -> list[list[MicroTurn]]:
    """Streams the user's side of conversations through a model; one that may hand over tasks has a desk in each.

    Args:
      talker: the model.
      conversations: of any length; those of like length run side by side.
      desks: of each, not used before; None for those of their records, where the model may hand over tasks.

    Returns:
      The micro-turns of each conversation, in the order given.
    """
    if desks is None:
        may = talker.config.serve.delegate
        desks = [desk_of(each, talker.tokenizer, talker.config) for each in conversations] if may else []
    order = sorted(range(len(conversations)), key=lambda index: conversations[index].micro_turns)
    turns: list[list[MicroTurn]] = [[] for _ in conversations]
    for start in range(0, len(order), TOGETHER):
        group = order[start : start + TOGETHER]
        # The last group is filled up, so that one compiled program serves all.
        group += [group[-1]] * (min(TOGETHER, len(order)) - len(group))
        longest = max(conversations[index].micro_turns for index in group)
        windows = [user_side(conversations[index], longest) for index in group]
        filled = len(set(group))  # what stands in for more has no desk: its micro-turns are not used
        windows[:filled] = [
            rehearse(desks[index], side) if desks else side for index, side in zip(group[:filled], windows)
        ]
        echoes = [Echo(conversations[index]) for index in group[:filled]]
        windows[:filled] = [echo.heard(side) for echo, side in zip(echoes, windows)]
        for together in talker.talk_together(windows, [talker.seed + index for index in group]):
            for index, echo, turn in zip(group[:filled], echoes, together):
                echo.put_out(turn)
                turn = desks[index].put_out(turn) if desks else turn
                if turn.index < conversations[index].micro_turns:
                    turns[index].append(turn)
    for desk in desks:
        desk.close()
    return turns


def user_side(conversation: Conversation, micro_turns: int) -> Iterator[Arrived]:
    """What arrives of a conversation, window by window: everything but the model's own side."""
    audio = conversation.user_audio
    if audio is not None:
        audio = fit_samples(audio, micro_turns * INPUT_SAMPLES)
    frames = [] if conversation.frames is None else list(zip(conversation.frame_times.tolist(), conversation.frames))
    texts = [text for text in conversation.texts if text.speaker != MODEL]
    return arrivals(audio, frames, texts, micro_turns, arrived_samples(conversation, micro_turns))
