"""A micro-turn of ours beside the plain way and beside transformers with its cache, at the same size, in one run.

The compared work is the backbone's on text: six tokens in, five out, one by one. That all three put out the same tokens
is checked first. Float32. Everything is for one session, as nothing else can be asked of the other two.
"""

import dataclasses
from collections.abc import Callable, Sequence

from tml_jax.bench import machine
from tml_jax.bench.own_step import text_variables
from tml_jax.bench.reference_model import Setting, reference_weights
from tml_jax.bench.timing import Times, interleaved
from tml_jax.bench.trials import all_versions, conditions, try_settings
from tml_jax.bench.turns import OF_A_TURN, OwnTurn, ReferenceTurn, RereadTurn, WholeTurn
from tml_jax.config import Config

CHECKED = 3  # micro-turns in which the tokens of all must be the same
SETTINGS = tuple(
    Setting(experts, attention) for attention in ("eager", "sdpa") for experts in ("eager", "grouped_mm", "batched_mm")
)
SESSIONS = (1, 8, 32)  # of the lines of the whole micro-turn


@dataclasses.dataclass(frozen=True)
class MicroTurnBench:
    """What was measured.

    Attributes:
      setting: the fastest of the reference.
      times: `reference`, `reread` and `own`, of the same work.
      whole: sessions → of a whole micro-turn in which all speak, and the steps of text in it.
      tried: setting of the reference → its times, or why there are none.
      context: elements that global layers see.
      other_cores: cores that other processes kept busy meanwhile; None where unknown.
      versions: of software, and numbers of cores and threads.
    """

    setting: Setting
    times: dict[str, Times]
    whole: dict[int, tuple[Times, int]]
    tried: dict[Setting, Times | str]
    context: int
    other_cores: float | None
    versions: dict[str, str]

    def __str__(self) -> str:
        base = self.times["reference"].median

        def row(name: str, times: Times, speed: str) -> str:
            each = f"{times.median * 1e3:.1f} ({times.low * 1e3:.1f}–{times.high * 1e3:.1f})"
            return f"| {name} | {each} | {speed} |"

        names = {
            "reference": f"transformers with its cache: {self.setting}",
            "reread": f"tml_jax without a cache, {self.context} elements read anew for each token",
            "own": "tml_jax, the same work",
        }
        rows = [row(names[name], times, f"{base / times.median:.2f}") for name, times in self.times.items()]
        for sessions, (times, steps) in self.whole.items():
            name = (
                f"tml_jax, a whole micro-turn, {sessions} session{'s' * (sessions > 1)}, {steps} text steps, all speak"
            )
            rows.append(row(name, times, "–"))
        return "\n".join(
            [
                "|  | ms a micro-turn (quartiles) | speed |",
                "| --- | ---: | ---: |",
                *rows,
                *conditions(self.tried, 1, self.other_cores, self.versions),
            ]
        )


def micro_turn_bench(
    config: Config,
    repeats: int = 15,
    settings: Sequence[Setting] = SETTINGS,
    sessions: Sequence[int] = SESSIONS,
    log: Callable[[str], None] = print,
) -> MicroTurnBench:
    """Measures.

    Args:
      config: the run, whose sizes and `serve.context` are measured.
      repeats: turns of each program in the comparison.
      settings: of the reference, of which the fastest is compared with.
      sessions: at once, in the lines of the whole micro-turn.
      log: takes lines of progress.

    Returns:
      The measurement.

    Raises:
      ValueError: the three do not put out the same tokens, no setting of the reference runs, or so many repeats do not
        fit the context.
      ImportError: the extra `parity` is not installed.
    """
    context = config.serve.context
    most = (context // OF_A_TURN - CHECKED - 1) // 2
    if repeats > most:
        raise ValueError(f"repeats = {repeats}: a context of {context} elements has room for {most}")
    fastest, tried = try_settings(settings, lambda setting: ReferenceTurn(config.model, setting), 5, 1, log)
    reference = ReferenceTurn(config.model, fastest)
    variables = text_variables(config.model, reference_weights(reference.module))
    turns = {
        "reference": reference,
        "reread": RereadTurn(config.model, variables, context),
        "own": OwnTurn(config.model, variables, context),
    }
    for number in range(CHECKED):
        said = {name: turn() for name, turn in turns.items()}
        if len(set(map(tuple, said.values()))) > 1:
            raise ValueError(f"micro-turn {number}: {said}; they do not do the same work")
    log("all put out the same tokens; taking times")
    others = machine.OtherWork()
    times = interleaved(turns, repeats, steps_per_turn=1, warmup=1)
    whole = {}
    for count in sessions:
        turn = WholeTurn(config, count)
        steps = turn()
        whole[count] = interleaved({"": turn}, repeats, steps_per_turn=1, warmup=1)[""], steps
    return MicroTurnBench(
        setting=fastest,
        times=times,
        whole=whole,
        tried=tried,
        context=context,
        other_cores=others.cores(),
        versions=all_versions(),
    )
