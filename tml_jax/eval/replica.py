"""What a trained model does on held-out conversations, beside policies that know no words; over a bad network; deaf.

The conversations are streamed through the model as a session would be, 200 ms at a time, several side by side.
Recordings have no cues: what needs them is left out, and gates and words are measured against the recorded model side.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from tml_jax.config import OUTPUT_RATE, Config
from tml_jax.data.packet_loss import lose_packets
from tml_jax.data.record import MODEL, Conversation
from tml_jax.eval import baselines
from tml_jax.eval.abilities.ablations import mute
from tml_jax.eval.conversation import write_example
from tml_jax.eval.delegation import by_variant, planned, score_delegation
from tml_jax.eval.estimates import Estimate
from tml_jax.eval.interactivity import aggregate, by_family, measure, reply_frequency, table
from tml_jax.eval.sound import plain_words, recognise, word_error_excess, word_error_rate
from tml_jax.eval.streaming import stream
from tml_jax.eval.suites.report import cell
from tml_jax.files import write_whole
from tml_jax.scenes.sources import SPLITS
from tml_jax.serve.session import Talker
from tml_jax.serve.words import MicroTurn
from tml_jax.signal.pcm import float_audio
from tml_jax.train.checkpoint import find_checkpoint
from tml_jax.train.prepare import HELD_OUT, ensure_source, first_records

FIT_CONVERSATIONS = 500  # of each training source, that the baselines are fitted on
LOST_PACKETS, LOST_BURST = 0.1, 3.0  # of the line with a bad network: share of packets, mean packets of a burst
HEARD_REPLIES = 120  # replies whose sound is given to the recogniser


def evaluate(
    run_dir: str | pathlib.Path,
    config: Config,
    log: Callable[[str], None] = print,
    output_dir: str | pathlib.Path | None = None,
) -> str:
    """Evaluates a run on its held-out conversations. What their records or the installation do not allow is left out,
    with a line to `log`: baselines, metrics of cues, recognised words. Conversations that the configuration generates
    are made where they are missing.

    Writes RUN/eval: `table.md`, `results.json`, and for one conversation of each family the sound and the
    timeline picture.

    Args:
      run_dir: folder of the run.
      config: its configuration; with `serve.weights` of `int8` it writes RUN/eval_int8 instead.
      log: where progress goes.
      output_dir: folder to write `eval` in, in place of the run's.

    Returns:
      The tables, in Markdown.

    Raises:
      CheckpointError: the run has no intact checkpoint.
      DataError: there are no held-out conversations, or a source is missing or broken.
      OSError: the folder for the results cannot be made.
    """
    run_dir, checkpoint = find_checkpoint(run_dir)
    step = int(checkpoint.name)
    output = pathlib.Path(output_dir or run_dir) / (
        "eval" if config.serve.weights == "whole" else f"eval_{config.serve.weights}"
    )
    output.mkdir(parents=True, exist_ok=True)  # minutes before it is written to, for it may not be writable
    held_out = list(ensure_source(config, HELD_OUT, log))
    fitted, frequency = _fit_baselines(config, log), reply_frequency(held_out)
    if not any(conversation.cues for conversation in held_out):
        log("the held-out conversations have no cues: no metrics of replies' timing, of holding, yielding and keeping")

    tasks = any(planned(conversation) for conversation in held_out)
    talker = Talker(str(checkpoint), weights=config.serve.weights, delegate=tasks)
    log(f"evaluating on {len(held_out)} held-out conversations")
    spoken = stream(talker, held_out)
    muted = stream(talker, [mute(conversation) for conversation in held_out])
    lossy = stream(talker, [_bad_network(conversation, index) for index, conversation in enumerate(held_out)])
    turns = {"model": spoken, f"model, {LOST_PACKETS:.0%} of packets lost": lossy, "model, audio muted": muted}
    for name, policy in baselines.POLICIES.items() if fitted else ():
        turns[name] = [baselines.run(policy, fitted, conversation) for conversation in held_out]
    turns["as recorded (ceiling)"] = [baselines.as_recorded(conversation) for conversation in held_out]
    measured = {
        name: [measure(conversation, lines, frequency) for conversation, lines in zip(held_out, every)]
        for name, every in turns.items()
    }
    scores = {name: aggregate(items) for name, items in measured.items()}
    families = by_family(measured["model"])
    sentence, recognised = _heard_words(held_out, spoken, log)
    tables = f"{table(scores)}\nThe model, by family:\n\n{table(families)}\n{sentence}"

    results = {"policies": scores, "families": families}
    if recognised:
        results["recognised"] = recognised
    if tasks:
        results["tasks"] = by_variant([score_delegation(*pair) for pair in zip(held_out, spoken)])
        tables += f"\nTasks for the background, done by the embedded one:\n\n{table(results['tasks'])}"
    plain = {kind: {name: dataclasses.asdict(score) for name, score in rows.items()} for kind, rows in results.items()}
    write_whole(output / "results.json", json.dumps({"step": step, **plain}, indent=1))
    write_whole(output / "table.md", tables)
    for family in sorted({conversation.family for conversation in held_out}):
        index = next(i for i, conversation in enumerate(held_out) if conversation.family == family)
        write_example(output / family, held_out[index], spoken[index], desk=tasks)
    return tables


def _bad_network(conversation: Conversation, index: int) -> Conversation:
    return lose_packets(conversation, np.random.default_rng(index), LOST_PACKETS, LOST_BURST)


def heard_words(
    conversations: Sequence[Conversation], spoken: Sequence[Sequence[MicroTurn]]
) -> tuple[str, dict[str, Estimate]]:
    """Whether the model's sound says what its text says, by an offline recogniser.

    Args:
      conversations: held-out conversations; their own model audio is the comparison.
      spoken: what the model put out in each.

    Returns:
      A sentence with the word error rates of the model's sound and of the recorded voice; the two, 0 … , with
      intervals over replies, as `model` and `as recorded`, and how far the first lies above the second (`excess`), or
      nothing where there was nothing to recognise.
    """
    said, heard, due, recorded = [], [], [], []
    has_reference = False
    for conversation, turns in zip(conversations, spoken):
        text = plain_words(" ".join("".join(turn.text for turn in turns).split()))
        reference = plain_words(" ".join(word.text for word in conversation.words if word.speaker == MODEL))
        if not reference or conversation.model_audio is None:
            continue
        has_reference = True
        if not text or len(said) == HEARD_REPLIES:
            continue
        said.append(text)
        heard.append(recognise(np.concatenate([turn.samples for turn in turns]), OUTPUT_RATE))
        due.append(reference)
        recorded.append(recognise(float_audio(conversation.model_audio), OUTPUT_RATE))
    if not has_reference:
        return "No held-out conversation has timed words of the model with their sound: nothing was recognised.\n", {}
    if not said:
        return "The model wrote no words beside its sound, so there was nothing to recognise.\n", {}
    rates = {
        "model": word_error_rate(said, heard),
        "as recorded": word_error_rate(due, recorded),
        "excess": word_error_excess(said, heard, due, recorded),
    }
    sentence = (
        f"Recognised by pocketsphinx over {len(said)} replies: {cell(rates['model'], '%')} word error between the "
        f"model's text and its sound; {cell(rates['as recorded'], '%')} for the recorded voice it learned from; reply "
        f"by reply the model has {cell(rates['excess'], '%')} more of its words wrong.\n"
    )
    return sentence, rates


def _fit_baselines(config: Config, log: Callable[[str], None]) -> baselines.Params | None:
    """The baselines' parameters, or None where the training data tell no reply from which to make them."""
    # Of what is generated, scenes alone have cues.
    sources = [name for name in config.data.sources if name not in config.data.generate or name in SPLITS]
    train = [record for name in sources for record in first_records(config, name, FIT_CONVERSATIONS, log)]
    train = [conversation for conversation in train if conversation.cues]  # recordings have none
    try:
        return baselines.fit(train)
    except ValueError as error:  # says what the conversations lack
        log(f"the table has no baselines: {error}")
        return None


def _heard_words(
    conversations: Sequence[Conversation], spoken: Sequence[Sequence[MicroTurn]], log: Callable[[str], None]
) -> tuple[str, dict[str, Estimate]]:
    """`heard_words`, or nothing where no recogniser is installed: recordings train without the extra that brings it."""
    try:
        return heard_words(conversations, spoken)
    except ImportError as error:
        log(f"the words of the model's sound are not measured: {error}")
        return "", {}
