"""Inputs: every element gets the embedding of its stream, and each embedding is what its definition says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf
from small import SMALL, random_leaves

from tml_jax.model.inputs import ElementArrays, InputEmbeddings, own_levels
from tml_jax.tokens import Stream

ROWS, TIME = 2, 24
HEARD, SEEN, SPOKEN = 5, 3, 4  # rows of the side arrays


@pytest.fixture(scope="module")
def embeddings():
    module = InputEmbeddings(SMALL, jnp.float32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), random_elements(0)))
    return jax.jit(module.apply), random_leaves(shapes, 1)


def random_elements(seed: int) -> ElementArrays:
    rng = np.random.default_rng(seed)
    stream = rng.permuted(np.tile(np.arange(8, dtype=np.int8), (ROWS, TIME // 8)), axis=1)
    most = np.select([stream == s for s in (Stream.AUDIO_IN, Stream.VIDEO, Stream.AUDIO_OUT)], (HEARD, SEEN, SPOKEN), 9)
    return ElementArrays(
        stream,
        rng.integers(0, SMALL.vocab_size, (ROWS, TIME)).astype(np.int32),
        rng.integers(0, most).astype(np.int32),  # slots of elements without a side array mean nothing
        rng.integers(0, 16, (ROWS, HEARD, 80)).astype(np.uint8),
        rng.integers(0, 256, (ROWS, SEEN, 2, 40, 40, 3)).astype(np.uint8),
        rng.uniform(-6, 2, (ROWS, SPOKEN, 5, 80)).astype(np.float32),
    )


def rms_norm(x, scale):
    return scale * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + SMALL.norm_eps)


def bag(levels, params):
    """Sum of one row of the table for each bin, normed."""
    rows = np.arange(levels.size) * 16 + levels.reshape(-1)
    return rms_norm(np.asarray(params["table"])[rows].sum(axis=0), np.asarray(params["norm"]["scale"]))


def nearest_level(log_mel):
    """Index of the nearest of 16 levels evenly spaced over −5 … 1."""
    return np.argmin(np.abs(np.asarray(log_mel, np.float64)[..., None] - np.linspace(-5, 1, 16)), axis=-1)


def patch(pixels, params):
    """The patch network, cell by cell: children in the order frame, row, column, colour."""
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    x, before = (pixels / 255 - mean) / deviation, (1, 1, 1)
    for index, (*covers, _) in enumerate(SMALL.vision_stages):
        fold = [size // was for size, was in zip(covers, before)]
        cells = [size // part for size, part in zip(x.shape, fold)]
        out = np.zeros((*cells, params[f"fold_{index}"].shape[1]))
        for cell in np.ndindex(*cells):
            part = x[tuple(slice(c * f, (c + 1) * f) for c, f in zip(cell, fold))]
            out[cell] = part.reshape(-1) @ np.asarray(params[f"fold_{index}"], np.float64)
        if index < len(SMALL.vision_stages) - 1:
            out = rms_norm(out, np.asarray(params[f"norm_{index}"]["scale"]))
            out = out * (1 + erf(out / np.sqrt(2))) / 2
        x, before = out, covers
    return rms_norm(x, np.asarray(params["final_norm"]["scale"])).reshape(-1)


def test_every_element_gets_the_embedding_of_its_stream_and_slot(embeddings):
    apply, variables = embeddings
    params, elements = variables["params"], random_elements(2)
    found = apply(variables, elements)
    for row, at in np.ndindex(ROWS, TIME):
        slot = elements.slot[row, at]
        match elements.stream[row, at]:
            case Stream.AUDIO_IN:
                expected = bag(elements.audio_in[row, slot], params["audio_in"])
            case Stream.VIDEO:
                expected = patch(elements.video[row, slot], params["video"])
            case Stream.AUDIO_OUT:
                expected = bag(nearest_level(elements.audio_out[row, slot]), params["own_audio"])
            case Stream.PADDING:
                continue
            case _:
                table = np.asarray(params["text_table"])[elements.token[row, at]]
                expected = rms_norm(table, np.asarray(params["text_norm"]["scale"]))
        np.testing.assert_allclose(found[row, at], expected, rtol=1e-4, atol=1e-4)


def test_side_arrays_may_be_empty_where_no_element_needs_them(embeddings):
    apply, variables = embeddings
    elements = random_elements(3)
    only_tokens = np.full_like(elements.stream, Stream.TEXT_IN)
    empty = {name: getattr(elements, name)[:, :0] for name in ("audio_in", "video", "audio_out")}
    whole = apply(variables, elements.replace(stream=only_tokens))
    np.testing.assert_array_equal(apply(variables, elements.replace(stream=only_tokens, **empty)), whole)


def test_own_sound_is_quantised_to_the_nearest_level():
    sound = np.random.default_rng(4).uniform(-5, 1, 4000).astype(np.float32)
    sound = np.r_[sound, np.float32(-5), np.float32(1), np.linspace(-5, 1, 16, dtype=np.float32)]
    np.testing.assert_array_equal(own_levels(sound), nearest_level(sound))
    np.testing.assert_array_equal(own_levels(np.float32([-np.inf, -9, 1.3, 40])), [0, 0, 15, 15])


def test_the_patch_network_has_the_sizes_of_its_stages(embeddings):
    params = embeddings[1]["params"]["video"]
    shapes = {name: leaf.shape for name, leaf in params.items() if name.startswith("fold")}
    assert shapes == {"fold_0": (75, 4), "fold_1": (16, 8), "fold_2": (128, 16), "fold_3": (32, SMALL.d_model)}
    assert set(params) == {*shapes, "norm_0", "norm_1", "norm_2", "final_norm"}
