"""The front ends and the vocoder as ONNX graphs.

The graphs state in ONNX operators what `signal/` and `model/inputs.py` state in JAX, and tests hold the two against
each other. They are not converted from the JAX functions, because a converter turns a Fourier transform into the
operator DFT, which onnxruntime computes with an error of 1e-4 of the largest bin at lengths that are no power of two,
as ours are: levels flip, and the vocoder errs a hundred times as much. Products of small matrices (see `Fourier`) are
exact to rounding.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import spox.opset.ai.onnx.v20 as op
from spox import Tensor, Var, argument, build

from tml_jax.config import (
    AUDIO_ELEMENTS,
    DMEL_LEVELS,
    INPUT_RATE,
    MEL_BINS,
    OUTPUT_RATE,
    OWN_FRAMES,
    PATCH,
    ModelConfig,
)
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.model.inputs import PIXEL_MEAN, PIXEL_STD
from tml_jax.signal.mel import (
    DMEL_MAX,
    DMEL_MIN,
    HEARD,
    HISTORY,
    OWN,
    OWN_MEL_MAX,
    OWN_MEL_MIN,
    hann,
    mel_filters,
)
from tml_jax.signal.vocoder import BINS, LEAST_WEIGHT, MAGNITUDE_ROUNDS, MOMENTUM, OVERLAP, PHASE_ROUNDS

Weights = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Graph:
    """One ONNX graph.

    Attributes:
      inputs: name → variable.
      outputs: name → variable.
      meaning: name → what it is and in which unit.
    """

    inputs: Mapping[str, Var]
    outputs: Mapping[str, Var]
    meaning: Mapping[str, str]

    def model(self) -> onnx.ModelProto:
        """The graph, checked, with the meanings as documentation of its inputs and outputs."""
        model = build(dict(self.inputs), dict(self.outputs))
        for value in (*model.graph.input, *model.graph.output):
            value.doc_string = self.meaning[value.name]
            for dim in value.type.tensor_type.shape.dim:
                if not (dim.dim_param or dim.dim_value):  # follows from the input's
                    dim.dim_param = value.name
        return model


class Fourier:
    """The Fourier transform of real frames, and its inverse, as products with small matrices (Cooley and Tukey 1965).

    Sample columns · a + b and bin c + rows · d share the phase c·a / rows + (c + rows · d)·b / length. So a frame is
    laid out as (a, b), one product goes over a, the other, with a matrix for each c, over b. Of a real frame's spectrum
    c = 0 … rows / 2 are enough: the bins of the others are conjugates of these.

    Attributes:
      bins: (c, d) int, which of the bins 0 … length / 2 lies at each place, or its conjugate. The first and the last c
        hold conjugates of each other, every other bin is there once.
    """

    def __init__(self, length: int, rows: int) -> None:
        """Args: samples of a frame; an even divisor of it, best near its root."""
        self.length, self.rows, self.columns = length, rows, length // rows
        a, b, c = np.arange(rows), np.arange(self.columns), np.arange(rows // 2 + 1)
        place = c[:, None] + rows * np.arange(self.columns)  # (c, d)
        self.bins = np.minimum(place, length - place)
        first = np.exp(-2j * np.pi * np.outer(c, a) / rows)
        second = np.exp(-2j * np.pi * b[:, None] * place[:, None] / length)  # (c, b, d)
        over_a = np.concatenate([first.real, first.imag])  # (2·c, a)
        real, imaginary = second.real, second.imag
        over_b = np.block([[real, imaginary], [-imaginary, real]])  # (c, 2·b, 2·d)
        # The inverse is the transpose, where a bin that stands for its conjugate, too, counts twice.
        count = np.where((c == 0) | (c == rows // 2), 1.0, 2.0)[:, None, None]
        back = over_b.transpose(0, 2, 1) * count / length
        self._over_a, self._over_b, self._back_b, self._back_a = map(_floats, (over_a, over_b, back, over_a.T))

    def forward(self, frames: Var, count: int) -> Var:
        """`count` frames, (count, length) → spectrum (c, count, 2, d): real and imaginary part."""
        heights = self.bins.shape[0]
        x = op.matmul(self._over_a, _reshape(frames, count, self.rows, self.columns))
        x = op.transpose(_reshape(x, count, 2, heights, self.columns), perm=(2, 0, 1, 3))
        x = op.matmul(_reshape(x, heights, count, 2 * self.columns), self._over_b)
        return _reshape(x, heights, count, 2, self.columns)

    def inverse(self, spectrum: Var, count: int) -> Var:
        """Spectrum (c, count, 2, d) → frames (count, length)."""
        heights = self.bins.shape[0]
        x = op.matmul(_reshape(spectrum, heights, count, 2 * self.columns), self._back_b)
        x = op.transpose(_reshape(x, heights, count, 2, self.columns), perm=(1, 2, 0, 3))
        x = op.matmul(self._back_a, _reshape(x, count, 2 * heights, self.columns))
        return _reshape(x, count, self.length)


def audio_in_graph(weights: Weights, config: ModelConfig) -> Graph:
    """Samples of one micro-turn → dMel levels (`signal.mel.dmel_compiled`) and embeddings (`InputEmbeddings.heard`)."""
    samples = argument(Tensor(np.float32, (INPUT_SAMPLES,)))
    history = argument(Tensor(np.float32, (HISTORY,)))
    fourier = Fourier(HEARD.window, rows=40)
    covered = HEARD.hop * np.arange(AUDIO_ELEMENTS)[:, None] + np.arange(HEARD.window)
    frames = op.gather(op.concat([history, samples], axis=0), op.const(covered))
    spectrum = fourier.forward(op.mul(frames, _floats(hann(HEARD.window))), AUDIO_ELEMENTS)
    magnitude = op.sqrt(op.max([_power(spectrum), _floats(HEARD.magnitude_floor**2)]))  # (c, frames, 1, d)
    # A bin that lies at two places counts at the first of them.
    filters, (_, first) = np.zeros((fourier.bins.size, MEL_BINS)), np.unique(fourier.bins, return_index=True)
    filters[first] = mel_filters(HEARD)
    magnitude = _reshape(op.transpose(magnitude, perm=(1, 0, 2, 3)), AUDIO_ELEMENTS, fourier.bins.size)
    mel = op.max([op.matmul(magnitude, _floats(filters)), _floats(1e-10)])
    log_mel = op.mul(op.log(mel), _floats(1 / math.log(10)))
    values = op.unsqueeze(op.clip(log_mel, _floats(DMEL_MIN), _floats(DMEL_MAX)), op.const([2]))
    distances = op.abs(op.sub(values, _floats(np.linspace(DMEL_MIN, DMEL_MAX, DMEL_LEVELS))))
    levels = op.arg_min(distances, axis=2, keepdims=0)
    embeddings = _bag_of_levels(levels, weights, "audio_in", config)
    return Graph(
        {"samples": samples, "history": history},
        {"levels": op.cast(levels, to=np.uint8), "embeddings": embeddings},
        {
            "samples": f"what arrived in the micro-turn, {INPUT_RATE} Hz, −1 … 1",
            "history": f"the {HISTORY} samples before them; zeros at the start",
            "levels": "dMel levels 0 … 15 of 50 ms each; only for whoever wants to look at them",
            "embeddings": "of the micro-turn's audio-in elements",
        },
    )


def audio_out_graph(weights: Weights, config: ModelConfig) -> Graph:
    """Own mel → embeddings (`InputEmbeddings.spoken`)."""
    mel = argument(Tensor(np.float32, ("elements", OWN_FRAMES, MEL_BINS)))
    scale = (DMEL_LEVELS - 1) / (OWN_MEL_MAX - OWN_MEL_MIN)
    scaled = op.round(op.mul(op.sub(mel, _floats(OWN_MEL_MIN)), _floats(scale)))
    levels = op.cast(op.clip(scaled, _floats(0), _floats(DMEL_LEVELS - 1)), to=np.int64)
    embeddings = _bag_of_levels(_reshape(levels, 0, OWN_FRAMES * MEL_BINS), weights, "own_audio", config)
    return Graph(
        {"mel": mel},
        {"embeddings": embeddings},
        {
            "mel": "log10 mel of the model's voice, 5 frames of 10 ms an element",
            "embeddings": "of the audio-out elements",
        },
    )


def frames_graph(weights: Weights, config: ModelConfig) -> Graph:
    """Patches → embeddings (`InputEmbeddings.seen`)."""
    pixels = argument(Tensor(np.int16, ("patches", *PATCH)))
    scaled = op.div(op.cast(pixels, to=np.float32), _floats(255))
    x = op.div(op.sub(scaled, _floats(PIXEL_MEAN)), _floats(PIXEL_STD))
    size, before = PATCH, (1, 1, 1)
    for index, stage in enumerate(config.vision_stages):
        cell = stage[:3]
        fold_t, fold_h, fold_w = (covers // covered for covers, covered in zip(cell, before))
        kernel = weights[f"video/fold_{index}"]
        t, h, w = size[0] // fold_t, size[1] // fold_h, size[2] // fold_w
        x = _reshape(x, 0, t, fold_t, h, fold_h, w, fold_w, size[3])
        x = _reshape(op.transpose(x, perm=(0, 1, 3, 5, 2, 4, 6, 7)), 0, t, h, w, kernel.shape[0])
        x = op.matmul(x, _floats(kernel))
        if index < len(config.vision_stages) - 1:
            x = op.gelu(_rms_norm(x, weights[f"video/norm_{index}/scale"], config))
        size, before = (t, h, w, kernel.shape[1]), cell
    x = _reshape(_rms_norm(x, weights["video/final_norm/scale"], config), 0, config.d_model)
    return Graph(
        {"pixels": pixels},
        {"embeddings": x},
        {
            "pixels": (
                "RGB patches of 40 × 40 pixels of two frames, the last of the first and of the second 100 ms; those of "
                "a picture row by row; 0 … 255, or −1 outside of a still picture"
            ),
            "embeddings": "of the video elements",
        },
    )


def text_graph(weights: Weights, config: ModelConfig) -> Graph:
    """Tokens → embeddings (`InputEmbeddings.tokens`). `table` is an input here, and a file for who runs the graph."""
    tokens = argument(Tensor(np.int64, ("tokens",)))
    table = argument(Tensor(np.float32, (config.vocab_size, config.d_model)))
    embeddings = _rms_norm(op.gather(table, tokens), weights["text_norm/scale"], config)
    return Graph(
        {"tokens": tokens, "table": table},
        {"embeddings": embeddings},
        {
            "tokens": f"ids of text, control and gate tokens, 0 … {config.logits_size - 1}",
            "table": "embeddings before the norm",
            "embeddings": "of the time, text and gate elements",
        },
    )


def vocoder_graph() -> Graph:
    """Mel and the carried state → samples and the new state (`signal.vocoder.vocode`).

    Everything is done frame by frame, so that here, too, chunks of any length give the samples of the whole at once.
    """
    mel = argument(Tensor(np.float32, ("frames", MEL_BINS)))
    hops = argument(Tensor(np.float32, (2 * (OVERLAP - 1), OWN.hop)))
    magnitudes = argument(Tensor(np.float32, (OVERLAP - 1, BINS)))
    to_magnitudes, next_hop = _magnitudes(), _next_hop()

    def step(index: Var, on: Var, hops: Var, magnitudes: Var) -> tuple[Var, ...]:
        return on, *next_hop(hops, magnitudes, to_magnitudes(op.gather(mel, index)))

    frames = op.squeeze(op.shape(mel, start=0, end=1))
    new_hops, new_magnitudes, samples = op.loop(frames, v_initial=[hops, magnitudes], body=step)
    return Graph(
        {"mel": mel, "hops": hops, "magnitudes": magnitudes},
        {"samples": _reshape(samples, -1), "new_hops": new_hops, "new_magnitudes": new_magnitudes},
        {
            "mel": (
                f"log10 mel, 10 ms a frame, {AUDIO_ELEMENTS * OWN_FRAMES} in a micro-turn; {OWN_MEL_MIN:g} everywhere "
                "where the model listens"
            ),
            "hops": "`new_hops` of the call before; zeros at the start",
            "magnitudes": "`new_magnitudes` of the call before; zeros at the start",
            "samples": f"{OUTPUT_RATE} Hz, −1 … 1, {OWN.hop} a frame; heard in the 200 ms after those of the input",
            "new_hops": "state for the next call",
            "new_magnitudes": "state for the next call",
        },
    )


def _magnitudes() -> Callable[[Var], Var]:
    """`signal.vocoder.magnitudes`: log10 mel (1, 80) → (1, 481)."""
    filters = mel_filters(OWN)
    reach = np.maximum(filters.sum(axis=1, keepdims=True), 1e-12)
    to_mel, spread, areas = map(_floats, (filters, (filters / reach).T, filters.sum(axis=0)))

    def magnitudes(log_mel: Var) -> Var:
        mel = op.pow(_floats(10), op.clip(log_mel, _floats(OWN_MEL_MIN), _floats(OWN_MEL_MAX)))
        mel = op.where(op.greater(log_mel, _floats(OWN_MEL_MIN)), mel, _floats(0))
        result = op.matmul(op.div(mel, areas), spread)
        for _ in range(MAGNITUDE_ROUNDS):
            explained = op.max([op.matmul(result, to_mel), _floats(1e-12)])
            result = op.mul(result, op.matmul(op.div(mel, explained), spread))
        return result

    return magnitudes


def _next_hop() -> Callable[[Var, Var, Var], tuple[Var, Var, Var]]:
    """The step of `signal.vocoder`.

    Hops (6, 240), magnitudes (3, 481) and those of the new frame (1, 481) → new hops, new magnitudes, one hop (240,).
    """
    fourier, window = Fourier(OWN.window, rows=30), hann(OWN.window)
    weight = np.cumsum(np.square(window).reshape(OVERLAP, OWN.hop)[::-1], axis=0)[::-1]
    weight = np.maximum(weight, LEAST_WEIGHT)
    fade = hann(2 * OWN.hop)[OWN.hop :]
    weight[0] /= np.maximum(1 - fade, 1e-9)
    fade = np.pad(fade[None], ((0, OVERLAP - 1), (0, 0)))
    pulse = np.zeros((fourier.bins.shape[0], OVERLAP, 2, fourier.columns))
    pulse[:, -1, 0] = np.where(fourier.bins % 2, -1e-4, 1e-4)  # the first guess of the newest frame, real
    hop, frame = np.arange(OVERLAP)[:, None], np.arange(OVERLAP)
    own = hop + OVERLAP - 1 - frame  # which hop of a frame is a hop of the four; its own first frame is the last
    added = (own[..., None] == frame).reshape(OVERLAP, OVERLAP**2)
    fade, pulse, weight, window, added = map(_floats, (fade, pulse, weight, window, added))
    covered, bins, silence = op.const(hop + frame), op.const(fourier.bins), _floats(np.zeros((1, OWN.hop)))

    def step(hops: Var, magnitudes: Var, new: Var) -> tuple[Var, Var, Var]:
        known = op.concat([magnitudes, new], axis=0)  # (4, 481)
        target = op.transpose(op.gather(known, bins, axis=1), perm=(1, 0, 2))
        target = op.unsqueeze(target, op.const([2]))  # (c, 4, 1, d)
        hops = op.concat([hops, silence], axis=0)  # (7, 240)
        past = _rows(hops, 0, OVERLAP - 1)
        expected = op.mul(_rows(hops, OVERLAP - 1, 2 * OVERLAP - 1), fade)
        before = None
        for _ in range(PHASE_ROUNDS):
            frames = op.mul(_reshape(op.gather(hops, covered), OVERLAP, OWN.window), window)
            spectrum = fourier.forward(frames, OVERLAP)
            if before is None:
                leading = op.add(spectrum, op.mul(target, pulse))
            else:
                leading = op.add(spectrum, op.mul(op.sub(spectrum, before), _floats(MOMENTUM)))
            before = spectrum
            size = op.sqrt(op.add(_power(leading), _floats(1e-20)))
            frames = op.mul(fourier.inverse(op.mul(leading, op.div(target, size)), OVERLAP), window)
            summed = op.matmul(added, _reshape(frames, OVERLAP**2, OWN.hop))
            hops = op.concat([past, op.add(op.div(summed, weight), expected)], axis=0)
        put_out = _reshape(_rows(hops, OVERLAP - 1, OVERLAP), OWN.hop)
        return _rows(hops, 1, 2 * OVERLAP - 1), _rows(known, 1, OVERLAP), put_out

    return step


def _bag_of_levels(levels: Var, weights: Weights, name: str, config: ModelConfig) -> Var:
    """Levels (n, bins) int64 → (n, D): see `model.inputs.BagOfLevels`."""
    table = weights[f"{name}/table"]
    rows = op.add(levels, op.const(DMEL_LEVELS * np.arange(len(table) // DMEL_LEVELS)))
    summed = op.reduce_sum(op.gather(_floats(table), rows), op.const([1]), keepdims=0)
    return _rms_norm(summed, weights[f"{name}/norm/scale"], config)


def _power(spectrum: Var) -> Var:
    """(c, frames, 2, d) → (c, frames, 1, d)."""
    real, imaginary = op.split(op.mul(spectrum, spectrum), num_outputs=2, axis=2)
    return op.add(real, imaginary)


def _rms_norm(x: Var, scale: np.ndarray, config: ModelConfig) -> Var:
    square = op.reduce_mean(op.mul(x, x), op.const([-1]))
    return op.mul(op.div(x, op.sqrt(op.add(square, _floats(config.norm_eps)))), _floats(scale))


def _rows(x: Var, first: int, end: int) -> Var:
    return op.slice(x, op.const([first]), op.const([end]))


def _reshape(x: Var, *shape: int) -> Var:
    """0 keeps an axis as it is, −1 takes what is left."""
    return op.reshape(x, op.const(shape))


def _floats(value: Any) -> Var:
    return op.const(np.asarray(value, np.float32))
