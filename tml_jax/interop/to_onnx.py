"""A checkpoint's front ends and the vocoder as a folder of ONNX graphs.

OUTPUT/audio_in.onnx   200 ms of sound → dMel levels and embeddings
OUTPUT/frames.onnx     patches → embeddings
OUTPUT/text.onnx       tokens → embeddings; its table lies beside it, in text_table.bin
OUTPUT/audio_out.onnx  mel of the model's own voice → embeddings
OUTPUT/vocoder.onnx    mel of 200 ms and a carried state → samples and the new state
OUTPUT/manifest.json   inputs, outputs and their meaning; the calls of one micro-turn; ids of the control tokens
OUTPUT/tokenizer.json
"""

import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import tensorstore as ts

from tml_jax.config import MICRO_TURN_SECONDS, Config, ModelConfig
from tml_jax.data.layout import control_token
from tml_jax.interop.array_store import open_arrays, slices
from tml_jax.interop.journal import Log, check_new, new_folder
from tml_jax.interop.onnx_graphs import audio_in_graph, audio_out_graph, frames_graph, text_graph, vocoder_graph
from tml_jax.tokens import Control
from tml_jax.train.checkpoint import TOKENIZER, find_checkpoint, read_config

AUDIO_IN, FRAMES, TEXT = "audio_in.onnx", "frames.onnx", "text.onnx"
AUDIO_OUT, VOCODER = "audio_out.onnx", "vocoder.onnx"
TABLE, MANIFEST = "text_table.bin", "manifest.json"
_FILES = {AUDIO_IN, FRAMES, TEXT, AUDIO_OUT, VOCODER, TABLE, MANIFEST, TOKENIZER}
_INPUTS = "params/inputs/"
_PIECE_BYTES = 64 << 20  # of the text table, at a time: it may be larger than memory, and than protobuf allows


def export_onnx(checkpoint: str | os.PathLike, output: str | os.PathLike, log: Log = print) -> None:
    """Writes a folder with the front ends and the vocoder as ONNX graphs, see above. Weights are float32.

    Args:
      checkpoint: RUN or RUN/checkpoints/STEP.
      output: new folder; appears whole or not at all.
      log: takes lines of progress.

    Raises:
      CheckpointError: there is no such checkpoint.
      ConvertError: `output` holds something already.
    """
    output = pathlib.Path(output).absolute()
    check_new(output)
    run, folder = find_checkpoint(checkpoint)
    config, arrays = read_config(run), open_arrays(folder)
    with new_folder(output, _FILES) as work:
        table = arrays.pop(_INPUTS + "text_table")
        graphs = _graphs(arrays, config.model)
        for name, graph in graphs.items():
            onnx.save(graph, work / name)
        with open(work / TABLE, "wb") as file:
            for rows in slices(table, _PIECE_BYTES):
                file.write(rows.astype("<f4").tobytes())
        shutil.copyfile(run / TOKENIZER, work / TOKENIZER)
        manifest = _manifest(config, int(folder.name), graphs)
        (work / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for path in sorted(output.iterdir()):
        log(f"{path.name}: {path.stat().st_size / 1e3:,.0f} kB")
    log(f"wrote {output}")


def _graphs(arrays: Mapping[str, ts.TensorStore], model: ModelConfig) -> dict[str, onnx.ModelProto]:
    """File → graph."""
    weights = {
        path.removeprefix(_INPUTS): array.read().result().astype(np.float32)
        for path, array in arrays.items()
        if path.startswith(_INPUTS)
    }
    return {
        AUDIO_IN: audio_in_graph(weights, model).model(),
        FRAMES: frames_graph(weights, model).model(),
        TEXT: _beside(text_graph(weights, model).model(), "table", TABLE),
        AUDIO_OUT: audio_out_graph(weights, model).model(),
        VOCODER: vocoder_graph().model(),
    }


def _beside(model: onnx.ModelProto, name: str, file: str) -> onnx.ModelProto:
    """Turns an input into a weight that lies in a file of its own, float32."""
    value = next(value for value in model.graph.input if value.name == name)
    model.graph.input.remove(value)
    kind = value.type.tensor_type
    weight = onnx.TensorProto(name=name, data_type=kind.elem_type, dims=[dim.dim_value for dim in kind.shape.dim])
    weight.data_location = onnx.TensorProto.EXTERNAL
    entries = {"location": file, "offset": 0, "length": 4 * math.prod(weight.dims)}
    for key, entry in entries.items():
        weight.external_data.add(key=key, value=str(entry))
    model.graph.initializer.append(weight)
    return model


def _manifest(config: Config, step: int, graphs: Mapping[str, onnx.ModelProto]) -> dict[str, Any]:
    model = config.model
    return {
        "model": config.name,
        "step": step,
        "how": (
            "Call the graphs as in `micro_turn`. On a CPU give each session one thread (intra_op_num_threads = 1): the "
            "matrices are so small that sharing them out takes longer than the work."
        ),
        "micro_turn_seconds": MICRO_TURN_SECONDS,
        "micro_turn": [
            "text.onnx: TIME, then the tokens of typed text; FROM_USER or FROM_BACKGROUND opens each",
            "frames.onnx: the patches of the window's pictures; no call where none arrived",
            "audio_in.onnx: the window's samples and the last samples of the window before; no call where there is no "
            "microphone",
            "The backbone, which is not here, takes these embeddings in, in this order.",
            "It puts out text and then the gate, LISTEN or SPEAK; text.onnx embeds each token for the next one.",
            "After SPEAK it puts out mel of four elements; audio_out.onnx embeds each for the next one.",
            "vocoder.onnx: the mel of the micro-turn, with the state of the one before; after LISTEN, too, so that "
            "what sounds can fade",
        ],
        "graphs": {
            name: {"inputs": _described(graph.graph.input), "outputs": _described(graph.graph.output)}
            for name, graph in graphs.items()
        },
        "tokens": {
            "file": TOKENIZER,
            "text": model.text_vocab_size,
            "control": {control.name: control_token(control, model) for control in Control},
        },
    }


def _described(values: Any) -> dict[str, Any]:
    def describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
        return {"shape": shape, "dtype": dtype, "meaning": value.doc_string}

    return {value.name: describe(value) for value in values}
