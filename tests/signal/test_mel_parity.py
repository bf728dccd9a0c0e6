"""Live comparison of the front end with transformers' Inkling processor."""

import importlib.util
import pathlib

import numpy as np
import pytest

from tml_jax.signal import mel

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("transformers.models.inkling")
    spec = importlib.util.spec_from_file_location("make_mel_golden", GOLDEN / "make_mel_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.reference


@pytest.fixture(scope="module")
def speech():
    with np.load(GOLDEN / "mel_golden.npz") as file:
        return file["speech"].astype(np.float32) / 32768


def test_golden_file_is_what_the_reference_gives(reference, speech):
    log_mel, levels = reference(speech)
    np.testing.assert_array_equal(mel.dmel(speech), levels)
    np.testing.assert_allclose(mel.log_mel(speech), log_mel, atol=1e-3)


@pytest.mark.parametrize("gain", [0.01, 0.1, 1.0, 3.0])
def test_levels_agree_at_every_loudness_and_offset(reference, speech, gain):
    for offset in (1, 157, 333, 641):
        samples = (gain * speech[offset:]).astype(np.float32)
        log_mel, levels = reference(samples)
        differs = mel.dmel(samples) != levels
        # Only a value within float32 rounding of the middle between two levels may fall on the other side.
        to_middle = np.abs((log_mel + 7) / 0.6 % 1 - 0.5) * 0.6
        assert np.all(to_middle[differs] < 5e-4)
        assert differs.mean() <= 5e-4


def test_filter_bank_equals_the_reference():
    extractor = pytest.importorskip("transformers.models.inkling.feature_extraction_inkling").InklingFeatureExtractor()
    np.testing.assert_allclose(mel.mel_filters(mel.HEARD), extractor.mel_filters.numpy().T, rtol=1e-5, atol=1e-9)
