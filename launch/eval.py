"""Evaluates a trained model, the sound of the vocoder alone, or the model against the reference implementation.

  python -m launch.eval --suite=replica --checkpoint=runs/replica [--weights=int8]
  python -m launch.eval --suite=replica --checkpoint=shipped      (makes its held-out data where they are missing)
  python -m launch.eval --suite=sound
  python -m launch.eval --suite=parity --checkpoint=runs/inkling      (needs the extra `parity`)

  python -m launch.eval --suite=interactivity --checkpoint=runs/replica --output=runs/interactivity \
      [--scenes=200] [--seeds=0,1,2] [--families=timed,cue] [--split=development]     (abilities beside targets)

Public benchmarks (extra `suites`), whose data you get yourself; tml_jax/eval/suites/registry.py lists them:

  python -m launch.eval --suite=fdb-v1 --data=FOLDER --checkpoint=runs/replica --output=runs/fdb [--evaluator=strict]
  python -m launch.eval --suite=fdb-v1 --data=FOLDER --score_only --output=runs/other     (answers that lie in FOLDER)
  python -m launch.eval --suite=qivd … --judge_model=NAME --judge_url=http://127.0.0.1:8000/v1
  python -m launch.eval --suite=big-bench-audio … --background=openai --background_model=NAME --background_url=URL
"""

import dataclasses
import pathlib
from collections.abc import Collection, Sequence

from absl import app, flags, logging

from launch import background, config_flag, huge_pages
from tml_jax import shipped
from tml_jax.config import ConfigError
from tml_jax.eval.recognition import RECOGNISERS
from tml_jax.eval.suites.registry import SUITES
from tml_jax.folder_lock import FolderBusyError
from tml_jax.interop.journal import ConvertError
from tml_jax.scenes.scripts import HELD_OUT, TEST_SPLITS
from tml_jax.train.checkpoint import CheckpointError, find_checkpoint, read_config

_OWN = ("replica", "interactivity", "sound", "parity")
_OF_BENCHMARKS = ("evaluator", "score_only", "recogniser", "whisper_model", "judge_model", "judge_url", "limit")
# (what they go with, the suites of that, flags): given with another suite, they would be of no effect.
_GOES_WITH = (
    ("--suite=interactivity", ("interactivity",), ("scenes", "seeds", "split", "families")),
    ("--suite=parity", ("parity",), ("reference",)),
    ("--suite=replica and interactivity", ("replica", "interactivity"), ("weights",)),
    ("--suite=interactivity and a public benchmark", ("interactivity", *SUITES), ("data",)),
    ("--suite=replica, interactivity and a public benchmark", ("replica", "interactivity", *SUITES), ("output",)),
    ("a model to be measured", ("replica", "interactivity", "parity", *SUITES), ("checkpoint",)),
    ("a public benchmark", SUITES, (*_OF_BENCHMARKS, *background.FLAGS)),
)
_SUITE = flags.DEFINE_enum("suite", "replica", [*_OWN, *SUITES], "What to measure.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of the run, or `shipped`; `sound` and --score_only need none."
)
_REFERENCE = flags.DEFINE_string(
    "reference", None, "For `parity`: a folder that transformers loads; default: the checkpoint, exported for it."
)
_WEIGHTS = flags.DEFINE_enum(
    "weights",
    None,
    ["whole", "int8"],
    "For `replica` and `interactivity`: how the experts are kept, in place of config.serve.weights.",
)
_DATA = flags.DEFINE_string(
    "data", None, "For a benchmark: the folder that it was downloaded to. For `interactivity`: where scenes are kept."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Folder to write answers, figures and tables to. For `replica`: the folder in which `eval` is "
    "written; default: the run's own, and runs/shipped for the shipped model.",
)
_SCENES = flags.DEFINE_integer("scenes", 200, "For `interactivity`: scenes of each family and seed.", lower_bound=1)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "For `interactivity`: seeds of the scenes.")
_SPLIT = flags.DEFINE_enum(
    "split",
    HELD_OUT,
    TEST_SPLITS,
    "For `interactivity`: within the ranges of training, or beyond, or with voices of another engine, flite; or the "
    "scenes that are there to choose by.",
)
_FAMILIES = flags.DEFINE_list("families", [], "For `interactivity`: families of scenes; none: all.")
_EVALUATOR = flags.DEFINE_enum(
    "evaluator", "compat", ["compat", "strict"], "The published evaluator's numbers, or those with its faults mended."
)
_SCORE_ONLY = flags.DEFINE_bool("score_only", False, "Score the output.wav and output.json that lie in --data.")
_RECOGNISER = flags.DEFINE_enum(
    "recogniser",
    "pocketsphinx",
    [*RECOGNISERS, "text"],
    "Whose words count; `text`: the model's own beside its sound.",
)
_WHISPER_MODEL = flags.DEFINE_string("whisper_model", "base.en", "For whisper: a size, or the folder of its weights.")
_JUDGE_MODEL = flags.DEFINE_string("judge_model", "", "Language model that judges; its key is in OPENAI_API_KEY.")
_JUDGE_URL = flags.DEFINE_string("judge_url", None, "Its endpoint, if not OpenAI's own.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Answer only the first so many items of each task; 0: all.", lower_bound=0)


def _checkpoint() -> str:
    if _CHECKPOINT.value is None:
        raise CheckpointError("give --checkpoint=RUN, the folder that launch.train or launch.convert made")
    return _CHECKPOINT.value


def _sound() -> None:
    from tml_jax.eval.sound import held_out_sound

    print(held_out_sound())


def _replica() -> None:
    from tml_jax.eval import replica

    run_dir, _ = find_checkpoint(_checkpoint())
    config = read_config(run_dir)
    weights = _WEIGHTS.value or config.serve.weights
    config = dataclasses.replace(config, serve=dataclasses.replace(config.serve, weights=weights))
    output = _OUTPUT.value or (f"runs/{shipped.NAME}" if _checkpoint() == shipped.NAME else None)
    print(replica.evaluate(shipped.resolve(_checkpoint()), config, output_dir=output))


def _interactivity() -> None:
    from tml_jax.eval.abilities import run
    from tml_jax.serve.session import Talker

    if _OUTPUT.value is None:
        raise ValueError("give --output=FOLDER, where the scenes, what was measured, and the tables go")
    if not all(seed.isdecimal() for seed in _SEEDS.value):
        raise ValueError(f"--seeds={','.join(_SEEDS.value)}: expected whole numbers from 0 on, such as 0,1,2")
    if _DATA.value is not None and not pathlib.Path(_DATA.value).is_dir():
        raise ValueError(f"--data={_DATA.value}: no such folder; make it first, or leave --data out")
    run_dir, checkpoint = find_checkpoint(_checkpoint())
    weights = _WEIGHTS.value or read_config(run_dir).serve.weights
    name = f"{_checkpoint()}, step {checkpoint.name}{'' if weights == 'whole' else f', {weights}'}"
    print(
        run.evaluate(
            lambda: Talker(str(checkpoint), weights=weights, delegate=True),
            pathlib.Path(_OUTPUT.value),
            name,
            f"saved at {checkpoint.stat().st_mtime:.0f}",  # a run that was trained again has other results
            _SCENES.value,
            [int(seed) for seed in _SEEDS.value],
            _FAMILIES.value,
            None if _DATA.value is None else pathlib.Path(_DATA.value),
            _SPLIT.value,
        )
    )


def _parity() -> None:
    from tml_jax.eval import parity

    errors = parity.compare(_checkpoint(), _REFERENCE.value)
    different = [what for what, error in errors.items() if error > parity.TOLERANCE]
    if different:
        raise SystemExit(f"launch.eval: {len(different)} of {len(errors)} comparisons differ: {'; '.join(different)}")
    print(f"all {len(errors)} comparisons agree to {parity.TOLERANCE:g}")


def _benchmark() -> None:
    from tml_jax.eval.suites import run
    from tml_jax.serve.session import Talker

    if _DATA.value is None or _OUTPUT.value is None:
        raise ValueError(f"give --data and --output. {SUITES[_SUITE.value].download}")
    if background.kind() not in ("none", "openai"):
        raise ValueError(
            f"--background={background.kind()} has no part in a benchmark: give --background=openai, a language model "
            "that does what is handed over, or none"
        )
    options = run.Options(
        strict=_EVALUATOR.value == "strict",
        recogniser=_RECOGNISER.value,
        whisper_model=_WHISPER_MODEL.value,
        judge_model=_JUDGE_MODEL.value,
        judge_url=_JUDGE_URL.value,
        limit=_LIMIT.value,
        backend=background.tools_backend(),
        backend_name=background.name(),
    )
    data, output = pathlib.Path(_DATA.value), pathlib.Path(_OUTPUT.value)
    if _SCORE_ONLY.value:
        print(run.evaluate(_SUITE.value, data, output, None, options))
        return
    _, checkpoint = find_checkpoint(_checkpoint())  # before the benchmark is read
    talker = lambda: Talker(str(checkpoint), delegate=run.delegates(SUITES[_SUITE.value], options))  # noqa: E731
    print(run.evaluate(_SUITE.value, data, output, talker, options, model=str(checkpoint)))


def _check_flags_of(what: str, suites: Collection[str], names: Sequence[str]) -> None:
    given = [name for name in names if not flags.FLAGS[name].using_default_value]
    if given and _SUITE.value not in suites:
        raise ValueError(f"--{given[0]} goes with {what}, not with {_SUITE.value}")


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)  # Orbax says much at INFO
    try:
        for goes_with in _GOES_WITH:
            _check_flags_of(*goes_with)
        own = {"sound": _sound, "replica": _replica, "interactivity": _interactivity, "parity": _parity}
        own.get(_SUITE.value, _benchmark)()
    except (CheckpointError, ConfigError, ConvertError, FolderBusyError, OSError, ValueError) as error:
        raise SystemExit(f"launch.eval: {error}") from error
    except ImportError as error:
        extra = "parity" if _SUITE.value == "parity" else "suites" if _SUITE.value in SUITES else "replica"
        remedy = "" if "install" in str(error) else f"; python -m pip install -e '.[{extra}]'"
        raise SystemExit(f"launch.eval: {error}{remedy}") from error
    except KeyboardInterrupt:
        kept = "nothing is kept"
        if _SUITE.value in SUITES:
            kept = "what was answered is kept, and the same command goes on"
        elif _SUITE.value == "interactivity":
            kept = "each family and seed that was done is kept, and the same command goes on"
        config_flag.interrupted("eval", kept)


if __name__ == "__main__":
    huge_pages.restart()
    config_flag.run(main)
