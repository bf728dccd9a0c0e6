"""Where a train step runs, by its devices; no GPU or TPU is needed to ask."""

import types

import numpy as np
import pytest

from tml_jax.config import MeshConfig
from tml_jax.parallel.placement import training_placement


@pytest.mark.parametrize(
    ("platform", "devices", "placed"),
    [("cpu", 1, False), ("gpu", 1, False), ("tpu", 1, True), ("cpu", 2, True), ("gpu", 2, True)],
)
def test_one_device_that_is_no_tpu_has_no_transport(platform: str, devices: int, placed: bool) -> None:
    mesh = types.SimpleNamespace(
        size=devices, devices=np.array([types.SimpleNamespace(platform=platform) for _ in range(devices)])
    )
    assert (training_placement(mesh, MeshConfig()) is not None) == placed
