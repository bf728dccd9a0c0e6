"""The model card of a shipped copy, written from its configuration, its figures and its comparison with the run."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from tml_jax.config import Config
from tml_jax.eval.agreement import Agreement
from tml_jax.model.count import active_parameters, count_parameters

_GENERATED = {
    "scenes": "acted conversations, whose scripts, timing and voices are drawn at random",
    "transcribed": "spoken sentences that the model writes down",
    "text": "sentences that the model writes",
    "captioned": "drawn frames that the model describes in writing",
    "named": "drawn objects, one after the other, that the model names in writing",
    "sought": "drawn objects, one after the other, of which the model notes those that it was to look for",
    "noted": "requests and other talk, one after the other, of which the model notes what each asks of it",
}
_VOICE = "hibari-tts"  # the package whose voice all generated sound has


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the card tells.

    Attributes:
      name: of the copy, where a checkpoint is asked for.
      config: of the run.
      step: of the checkpoint.
      dtype: of the matrices in the copy.
      bytes: of its weights on disk.
      command: that trained the run, or "".
      licences: source → licence, of sources that were not generated here.
      results: `policies` and `families` of the evaluation, see `eval.replica`.
      table: the same in Markdown.
      agreement: of run and copy, or None where they were not compared.
      note: on the recipe.
      abilities: summary of the evaluation of abilities, whose tables lie beside the card, or "".
    """

    name: str
    config: Config
    step: int
    dtype: str
    bytes: int
    command: str
    licences: Mapping[str, str]
    results: Mapping[str, Any]
    table: str
    agreement: Agreement | None
    note: str = ""
    abilities: str = ""


def card(facts: Facts) -> str:
    """The card, in Markdown."""
    config = facts.config
    counts = count_parameters(config.model)
    sections = [
        f"# {config.name}\n\nA full-duplex interaction model of the `tml_jax` project: it hears, sees and reads, and "
        "speaks and writes at the same time, in micro-turns of 200 ms.\n\n"
        f"- {_millions(sum(counts.values()))} parameters, {_millions(active_parameters(config.model, counts))} active "
        f"for a text token; checkpoint of step {facts.step}.\n"
        f"- Matrices in {facts.dtype}, all else in float32: {facts.bytes / 1e6:.1f} MB, without optimizer state. They "
        f"are computed with in {config.serve.dtype}.\n"
        f"- `python -m launch.talk --checkpoint={facts.name} --background=local --audio=question.wav "
        "--output=answer`, or "
        f"`python -m launch.serve --checkpoint={facts.name} --background=local`.",
        f"## Data\n\n{_data(facts)}",
        f"## Recipe\n\n{_recipe(facts)}",
        f"## Figures\n\nHeld-out conversations, streamed 200 ms at a time through {_weights(facts)}, with 95% "
        "intervals; the columns are defined in `tml_jax/eval/interactivity.py`. "
        f"`results.json` has them as numbers.\n\n{facts.table.strip()}{_abilities(facts)}",
        f"## What the narrower weights change\n\n{_agreement(facts)}",
        f"## Limits\n\n{_limits(facts)}",
        f"## Licences\n\n{_licences(facts)}",
    ]
    return "\n\n".join(sections) + "\n"


def _abilities(facts: Facts) -> str:
    if not facts.abilities:
        return ""
    return f"\n\nMore scenes of each family, judged by sound, beside targets: {facts.abilities} See `ABILITIES.md`."


def _weights(facts: Facts) -> str:
    """Which weights the figures are of: a run whose matrices were narrowed before is compared with nothing."""
    return "the run as it was trained" if facts.agreement else "the run that was copied"


def _data(facts: Facts) -> str:
    data = facts.config.data
    total = sum(source.weight for source in data.sources.values())
    lines = ["| source | records | share of what is packed | what it is |", "|---|---:|---:|---|"]
    for name, source in sorted(data.sources.items()):
        count, what = "–", "not generated here"
        if name in data.generate:
            count, what = f"{data.generate[name]:,}", f"generated: {_GENERATED.get(name, name)}"
        lines.append(f"| {name} | {count} | {source.weight / total:.0%} | {what} |")
    if "held_out" in data.generate:
        lines.append(
            f"| held out | {data.generate['held_out']:,} | 0% | generated, with wordings, timings and settings of the "
            "voice that training never had |"
        )
    return "\n".join(lines)


def _recipe(facts: Facts) -> str:
    config = facts.config
    train, packing = config.train, config.data.packing
    command = f"```\n{facts.command}\n```\n\n" if facts.command else ""
    begun = f", started from `{train.init_from}`" if train.init_from else ""
    return (
        f"{command}{train.steps:,} steps of {config.data.batch_size} rows of {packing.elements} elements{begun}, "
        f"AdamW, learning rate {train.learning_rate:g} ({train.schedule}), {train.compute_dtype}, seed {train.seed}. "
        "`config.json` has every field." + (f"\n\n{facts.note}" if facts.note else "")
    )


def _agreement(facts: Facts) -> str:
    both = facts.agreement
    if both is None:
        return "Not measured."
    rows = [
        f"| {field.replace('_', ' ')} | {_value(getattr(both.first, field))} | {_value(getattr(both.second, field))} |"
        for field in ("gate", "balanced_gate", "words", "keyword", "on_time")
    ]
    return (
        f"{both.conversations} held-out conversations ({both.micro_turns} micro-turns) through the run and through the "
        f"copy, each hearing its own past: the same gate in {both.same_gates:.1%} of the micro-turns, the same text in "
        f"{both.same_text:.1%}, nothing different at all in {both.same_conversations:.0%} of the conversations; until "
        f"something differs, the median difference of their mel is {both.mel_db:.2f} dB.\n\n"
        "| | run | copy |\n|---|---:|---:|\n" + "\n".join(rows)
    )


def _limits(facts: Facts) -> str:
    """Every line with a figure is there only if the evaluation has that figure."""
    model = facts.results["policies"]["model"]
    families = facts.results["families"]
    figures = {**model, "kept": families.get("backchannel", {}).get("kept")}  # that of side talk is another thing
    figures["false_start"] = families.get("silence", {}).get("false_start")  # and waiting for what is not seen as well
    shares = {
        name: f"{value['value']:.0%}" for name, value in figures.items() if isinstance(value, dict) and value["count"]
    }
    lines = ["It knows the little world of its data, in English, and nothing beyond it."]
    if facts.config.data.generate:
        lines.append("Nobody real spoke in the generated data: it has not been tried on people, rooms or microphones.")
    said = {
        "keyword": "It names the word that is due in {} of the replies.",
        "words": "Of the words due, {} come in their place (1 − word error rate).",
        "on_time": "It begins to reply within 0.4 s of the right moment in {} of the cases.",
        "yielded": "It falls silent in time for {} of the interruptions.",
        "kept": "It goes on speaking through {} of the backchannels.",
        "take_over": "It speaks where it should hold back in {} of the cases.",
        "false_start": "It says something in {} of the conversations that ask for nothing.",
    }
    lines += [sentence.format(shares[name]) for name, sentence in said.items() if name in shares]
    lines.append("It has not been trained to refuse, nor tested for safety: it is for research, not for use on people.")
    return "\n".join(f"- {line}" for line in lines)


def _licences(facts: Facts) -> str:
    lines = ["The weights: Apache-2.0, as the project."]
    if facts.config.data.generate:
        behind = ", before clips of others" if facts.config.data.clips else ""
        lines.append(
            f"Generated sound: the voice of {_licence_of(_VOICE)}; its text and pictures are made by this project's "
            f"own scripts (Apache-2.0){behind}."
        )
    lines += [f"{name}: {licence}." for name, licence in sorted(facts.licences.items())]
    return "\n".join(f"- {line}" for line in lines)


def _licence_of(package: str) -> str:
    try:
        about = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return f"{package} (not installed where this card was made: see its own licence)"
    licence = about.get("License-Expression") or about.get("License") or "see its own licence"
    return f"{package} {about['Version']} ({licence})"


def _value(estimate: Any) -> str:
    return f"{estimate.value:.1%}" if estimate.count else "–"


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f} million"
