"""The train step of ours beside that of transformers in torch, at the same size, on the same CPU, in one run.

Both do the same: embed rows of text tokens, all layers, the final norm, the logits of every position, mean
cross-entropy of the next token; the backward pass; clipping by global norm; AdamW. Float32 throughout, the same initial
weights, no padding, no remat; that the losses of both stay equal over a few steps is checked first. Not included on
either side: making batches. Ours also computes what `launch.train` logs and checks that the step is finite, as in
training; it is the train loop's own step without the parts that text does not pass through.
"""

import dataclasses
from collections.abc import Callable, Sequence

from tml_jax.bench import machine, reference_step
from tml_jax.bench.batches import random_tokens
from tml_jax.bench.own_step import text_step, whole_step
from tml_jax.bench.reference_model import Setting
from tml_jax.bench.reference_step import SETTINGS, ReferenceStep
from tml_jax.bench.timing import Times, interleaved
from tml_jax.bench.trials import all_versions, conditions, try_settings
from tml_jax.config import Config
from tml_jax.scale.flops import train_flops

LOSS_STEPS, LOSS_TOLERANCE = 4, 1e-3  # the losses of so many steps agree so far, relatively
TEXT_PARTS = (
    "projections", "keys and values", "dense MLPs", "routers", "routed experts", "shared experts", "attention",
    "unembedding",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TrainBench:
    """What was measured.

    Attributes:
      tokens: elements of a step.
      parameters: numbers that the optimiser moves in the step on text.
      text_flops: operations that the mathematics of the step on text asks for.
      whole_flops: the same of the whole step.
      setting: the fastest setting of the reference.
      reference: its times.
      text: ours, the same work.
      whole: ours, with every stream, loss and parameter.
      tried: setting of the reference → its times, or why there are none.
      other_cores: cores that other processes kept busy meanwhile; None where unknown.
      versions: of software, and numbers of cores and threads.
    """

    tokens: int
    parameters: int
    text_flops: float
    whole_flops: float
    setting: Setting
    reference: Times
    text: Times
    whole: Times
    tried: dict[Setting, Times | str]
    other_cores: float | None
    versions: dict[str, str]

    @property
    def ratio(self) -> float:
        """Speed of ours over that of the fastest reference."""
        return self.reference.median / self.text.median

    def __str__(self) -> str:
        def row(name: str, times: Times, flops: float, ratio: str) -> str:
            return (
                f"| {name} | {times.median * 1e3:.0f} ({times.low * 1e3:.0f}–{times.high * 1e3:.0f}) | "
                f"{self.tokens / times.median:,.0f} | {flops / times.median / 1e12:.3f} | {ratio} |"
            )

        return "\n".join(
            [
                "|  | ms a step (quartiles) | tokens/s | TFLOP/s | speed |",
                "| --- | ---: | ---: | ---: | ---: |",
                row(f"transformers: {self.setting}", self.reference, self.text_flops, "1.00"),
                row("tml_jax, the same work", self.text, self.text_flops, f"{self.ratio:.2f}"),
                row("tml_jax, whole step, all streams", self.whole, self.whole_flops, "–"),
                f"{self.tokens} tokens a step, {self.parameters:,} parameters (of the same work), float32, "
                f"{self.text.repeats} turns of each",
                *conditions(self.tried, 0, self.other_cores, self.versions),
            ]
        )


def train_bench(
    config: Config,
    repeats: int = 15,
    settings: Sequence[Setting] = SETTINGS,
    log: Callable[[str], None] = print,
) -> TrainBench:
    """Measures.

    Args:
      config: the run, whose model, rows and optimiser are measured; its rate is held constant.
      repeats: turns of each program in the comparison.
      settings: of the reference, of which the fastest is compared with.
      log: takes lines of progress.

    Returns:
      The measurement.

    Raises:
      ValueError: the two do not compute the same losses, or no setting of the reference runs.
      ImportError: the extra `parity` is not installed.
    """
    train = dataclasses.replace(
        config.train, schedule="constant", warmup_steps=0, balance_rate=0.0, accumulate=1, remat="none",
        compute_dtype="float32", moment_dtype="float32",
    )  # fmt: skip
    config = dataclasses.replace(config, train=train)
    tokens = random_tokens(config)

    def step_in(setting: Setting) -> ReferenceStep | str:
        wanted = reference_step.fetched_bytes(config.model, tokens.size, setting)
        if wanted > reference_step.MOST_FETCHED:
            return f"not run, it copies {wanted / 1e9:.1f} GB of expert weights in every layer"
        return ReferenceStep(config.model, config.train, tokens, setting)

    fastest, tried = try_settings(settings, step_in, 3, 0, log)
    reference = ReferenceStep(config.model, train, tokens, fastest)
    text = text_step(config, tokens, reference.weights())
    _check_same_work(reference, text)
    whole = whole_step(config)
    log(f"losses of {LOSS_STEPS} steps agree; taking times")
    others = machine.OtherWork()
    times = interleaved({"reference": reference, "text": text, "whole": whole}, repeats)
    rows = config.data.batch_size
    packing = dataclasses.replace(config.data.packing, outputs=tokens.shape[1] - 1)
    on_text = dataclasses.replace(config, data=dataclasses.replace(config.data, packing=packing))
    return TrainBench(
        tokens=rows * packing.elements,
        parameters=text.parameters,
        text_flops=sum(train_flops(on_text).useful[part] for part in TEXT_PARTS),
        whole_flops=sum(train_flops(config).useful.values()),
        setting=fastest,
        tried=tried,
        other_cores=others.cores(),
        versions=all_versions(),
        **times,
    )


def _check_same_work(reference: ReferenceStep, text: Callable[[], float]) -> None:
    for step in range(LOSS_STEPS):
        theirs, ours = reference(), text()
        if not abs(ours / theirs - 1) <= LOSS_TOLERANCE:
            raise ValueError(f"step {step}: loss {ours} here, {theirs} in the reference; they do not do the same work")
    if reference.parameters != text.parameters:
        raise ValueError(f"{text.parameters} parameters here, {reference.parameters} in the reference")
