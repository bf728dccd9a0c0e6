"""Still pictures become the patches that the reference's processor makes of them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.interop.pictures import OUTSIDE, read_picture, scale_picture, still_patches
from tml_jax.model.inputs import PIXEL_MEAN, PIXEL_STD
from tml_jax.signal.media import MediaError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def reference():
    """(patches, 40, 40, 3) float32, normalised, as the reference's processor gives them."""
    with np.load(GOLDEN / "picture_golden.npz") as file:
        return file["pixels"]


def test_patches_of_a_real_picture_are_the_references(reference):
    patches = still_patches(read_picture(GOLDEN / "picture_golden.png"))
    mean, std = np.asarray(PIXEL_MEAN), np.asarray(PIXEL_STD)
    whole = np.rint((reference * std + mean) * 255).astype(np.int16)
    np.testing.assert_array_equal(patches[:, 0], whole)
    np.testing.assert_array_equal(patches[:, 1], whole)


def test_the_model_sees_the_pixels_that_the_reference_sees(reference, small_model, small_variables):
    patches = still_patches(read_picture(GOLDEN / "picture_golden.png"))
    seen = small_model.apply(small_variables, jnp.asarray(patches), method=lambda model, x: model.inputs.seen(x))
    unscaled = (reference * np.asarray(PIXEL_STD) + np.asarray(PIXEL_MEAN)) * 255
    pair = jnp.asarray(np.stack([unscaled, unscaled], axis=1), jnp.float32)
    expected = small_model.apply(small_variables, pair, method=lambda model, x: model.inputs.video(x, jnp.float32))
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)
    assert jax.tree.leaves(seen)[0].shape == (len(reference), small_model.config.d_model)


@pytest.mark.parametrize(("rows", "columns", "count"), [(40, 40, 2), (41, 79, 4), (1, 1, 1), (80, 120, 8)])
def test_a_patch_more_to_the_right_than_fits_and_nothing_outside(rows, columns, count):
    patches = still_patches(np.full((rows, columns, 3), 7, np.uint8))
    assert patches.shape == (count, 2, 40, 40, 3)
    assert np.sum(patches == 7) == 2 * 3 * rows * columns
    assert set(np.unique(patches)) <= {OUTSIDE, 7}


@pytest.mark.parametrize(
    ("factor", "longest", "size"),
    [(2.0, 2048, (60, 100)), (2.0, 70, (42, 70)), (0.5, None, (15, 25)), (2.0, 40, (30, 50))],
)
def test_pictures_grow_by_a_factor_up_to_a_longest_edge(factor, longest, size):
    assert scale_picture(np.zeros((30, 50, 3), np.uint8), factor, longest).shape == (*size, 3)


def test_wrong_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(3, 4\).*expected \(rows, columns, 3\) uint8"):
        still_patches(np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match="factor = 0: must be above 0"):
        scale_picture(np.zeros((3, 4, 3), np.uint8), 0)
    with pytest.raises(MediaError, match="no such file"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(MediaError, match="not a picture that can be read"):
        read_picture(tmp_path / "text.png")
