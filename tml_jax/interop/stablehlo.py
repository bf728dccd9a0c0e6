"""A checkpoint of ours → a program that any JAX process runs: sound, text and frames in, sound and text out.

Two functions are exported (`jax.export`: StableHLO and the description of its arguments). `start` makes the state of
B sessions from seeds. `micro_turn` takes the state, the weights and 200 ms of plain input, and returns the new state
and 200 ms of output (see `stablehlo_step`). All arguments are dicts of arrays, so that the process that calls needs
nothing of this project. The folder holds an example of such a process, `stablehlo_caller`.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax import export

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE, Config
from tml_jax.data.layout import INPUT_SAMPLES, OUTPUT_SAMPLES, control_token
from tml_jax.interop import stablehlo_step
from tml_jax.interop.array_store import open_arrays, slices
from tml_jax.interop.journal import ConvertError, Log, Progress, check_new, new_folder
from tml_jax.interop.stablehlo_step import OUTPUTS, Arrays, input_arrays
from tml_jax.interop.tensor_files import TensorFile
from tml_jax.tokens import Control
from tml_jax.train.checkpoint import TOKENIZER, find_checkpoint, read_config

PLATFORMS = ("cpu", "tpu", "cuda")
MANIFEST, WEIGHTS, CALLER = "manifest.json", "weights.safetensors", "caller.py"
START, MICRO_TURN = "start.jax_export", "micro_turn.jax_export"
_PIECE_BYTES = 64 << 20  # of a weight, at a time: the model may be larger than memory
_FILES = (MANIFEST, WEIGHTS, CALLER, START, MICRO_TURN, TOKENIZER)


def export_stablehlo(
    checkpoint: str | os.PathLike,
    output: str | os.PathLike,
    sessions: int = 1,
    platforms: Sequence[str] = PLATFORMS,
    log: Log = print,
) -> None:
    """Writes a folder with the streaming model as a program: functions, weights, manifest and an example.

    Args:
      checkpoint: RUN or RUN/checkpoints/STEP.
      output: new folder; appears whole or not at all.
      sessions: how many run side by side in one call.
      platforms: what the program can be compiled for, among `cpu`, `tpu`, `cuda` and `rocm`.
      log: takes lines of progress.

    Raises:
      CheckpointError: there is no such checkpoint, or it is damaged.
      ConvertError: `output` holds something already, or `sessions` or `platforms` is wrong.
    """
    output = pathlib.Path(output).absolute()
    check_new(output)
    _check(sessions, platforms)
    run, folder = find_checkpoint(checkpoint)
    config, arrays = read_config(run), open_arrays(folder)
    kinds = {name: jax.ShapeDtypeStruct(array.shape, array.dtype.numpy_dtype) for name, array in arrays.items()}
    with new_folder(output, {*_FILES, WEIGHTS + ".part"}) as work:
        functions = _write_functions(work, config, kinds, sessions, platforms, log)
        layout = [(name, kind.dtype, kind.shape) for name, kind in kinds.items()]
        progress = Progress(sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in layout), log)
        with TensorFile(work / WEIGHTS, layout) as file:
            for array in arrays.values():
                for piece in slices(array, _PIECE_BYTES):
                    file.write(piece)
                    progress.add(piece.nbytes)
        shutil.copyfile(run / TOKENIZER, work / TOKENIZER)
        shutil.copyfile(pathlib.Path(__file__).with_name("stablehlo_caller.py"), work / CALLER)
        (work / MANIFEST).write_text(_text(_manifest(config, functions, sessions)), encoding="utf-8")
    log(f"wrote {output}: {sum(path.stat().st_size for path in output.iterdir()) / 1e6:.1f} MB")


def _check(sessions: int, platforms: Sequence[str]) -> None:
    if sessions < 1:
        raise ConvertError(f"sessions = {sessions}: must be at least 1")
    if not platforms or any(platform not in (*PLATFORMS, "rocm") for platform in platforms):
        raise ConvertError(f"platforms = {tuple(platforms)}: give some of {', '.join(PLATFORMS)}, rocm")


def _write_functions(
    work: pathlib.Path, config: Config, kinds: Arrays, sessions: int, platforms: Sequence[str], log: Log
) -> dict[str, Any]:
    """Exports and writes both functions; returns their part of the manifest."""
    seeds = jax.ShapeDtypeStruct((sessions,), jnp.int32)
    empty = jax.eval_shape(lambda seeds: stablehlo_step.start(seeds, config), seeds)
    structure, state = jax.tree.structure(empty), _named(empty)
    names = list(state)

    def start(seeds: jax.Array) -> Arrays:
        return _named(stablehlo_step.start(seeds, config))

    def micro_turn(state: Arrays, weights: Arrays, inputs: Arrays) -> tuple[Arrays, Arrays]:
        carried = jax.tree.unflatten(structure, [state[name] for name in names])
        carried, output = stablehlo_step.step(carried, unflatten_dict(weights, sep="/"), inputs, config)
        return _named(carried), output

    inputs = input_arrays(config, sessions)
    taken = {name: array for name, (array, _) in inputs.items()}
    output = jax.eval_shape(micro_turn, state, kinds, taken)[1]
    return {
        "start": {
            "call": "state = start(seeds)",
            "file": START,
            **_write_function(work / START, start, (seeds,), platforms, log),
            "seeds": _array(seeds, "of the noise from which the sound of each session is made"),
            "state": {name: _array(array) for name, array in state.items()},
        },
        "micro_turn": {
            "call": "state, output = micro_turn(state, weights, inputs)",
            "file": MICRO_TURN,
            **_write_function(work / MICRO_TURN, micro_turn, (state, kinds, taken), platforms, log),
            "inputs": {name: _array(*inputs[name]) for name in inputs},
            "output": {name: _array(output[name], meaning) for name, meaning in OUTPUTS.items()},
        },
    }


def _write_function(
    path: pathlib.Path, function: Any, arguments: tuple[Any, ...], platforms: Sequence[str], log: Log
) -> dict[str, Any]:
    """Exports and writes one function; returns what it was exported for."""
    began = time.perf_counter()
    with _without_source_lines():
        exported = export.export(jax.jit(function), platforms=platforms)(*arguments)
        data = exported.serialize()
    path.write_bytes(data)
    seconds = time.perf_counter() - began
    log(f"{path.name}: {len(data) / 1e6:.2f} MB for {', '.join(exported.platforms)} in {seconds:.1f} s")
    return {
        "platforms": list(exported.platforms),
        "calling_convention_version": exported.calling_convention_version,
        # Calls of code that is in no StableHLO, and so perhaps in no other runtime.
        "custom_calls": sorted(set(re.findall(r"custom_call @([\w.]+)", exported.mlir_module()))),
    }


@contextlib.contextmanager
def _without_source_lines() -> Iterator[None]:
    """Keeps the paths of this machine's source files out of what is exported."""
    before = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def _manifest(config: Config, functions: dict[str, Any], sessions: int) -> dict[str, Any]:
    return {
        "model": config.name,
        "how": (
            f"Run {CALLER}, or read it. The first axis of every array of input, output and seeds is `sessions`. Pass "
            "`state` on as it is. Inputs are zero where nothing arrived."
        ),
        "sessions": sessions,
        "micro_turn_seconds": MICRO_TURN_SECONDS,
        "rates": {"input": INPUT_RATE, "output": OUTPUT_RATE},
        "samples": {"input": INPUT_SAMPLES, "output": OUTPUT_SAMPLES},
        "tokens": {
            "file": TOKENIZER,
            "how": (
                "Typed text is FROM_USER, and a result of a background model FROM_BACKGROUND, followed by the tokens "
                "of the text with one space before it. What is typed goes first; results take at most half of the "
                "places for text of a micro-turn, and wait otherwise. What comes out is text where the id is below "
                "`text`."
            ),
            "text": config.model.text_vocab_size,
            "control": {control.name: control_token(control, config.model) for control in Control},
        },
        "weights": {"file": WEIGHTS},
        "functions": functions,
        "made_with": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        "compatibility": (
            "jax.export promises that a jax up to 6 months newer, or 3 weeks older, than the one that made the files "
            "runs them. Products have the default precision of the platform, which on TPU and GPU is less than float32."
        ),
    }


def _text(manifest: dict[str, Any]) -> str:
    """Indented JSON, but with shapes in one line."""
    text = json.dumps(manifest, indent=2, ensure_ascii=False)
    return re.sub(r"\[[\d\s,]+\]", lambda shape: json.dumps(json.loads(shape[0])), text)


def _array(array: jax.ShapeDtypeStruct, meaning: str | None = None) -> dict[str, Any]:
    described = {"shape": list(array.shape), "dtype": np.dtype(array.dtype).name}
    return described | ({"meaning": meaning} if meaning else {})


def _named(tree: Any) -> dict[str, Any]:
    """A tree as one dict, by path."""
    spell = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")  # noqa: E731
    return {spell(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
