"""TML-Interaction-Small trained on 64 TPU7x chips, 128 devices (tpu7x:4x4x4).

python -m launch.compile --config=configs/tml_tpu7x_64.py --topology=tpu7x:4x4x4 --step=train
"""

from ml_collections import ConfigDict

from configs import tml_interaction_small


def get_config() -> ConfigDict:
    """The flagship, laid over these chips."""
    config = tml_interaction_small.get_config()
    config.name = "tml_tpu7x_64"
    config.mesh = dict(fsdp=8, expert=16, transport="capacity", capacity=1.25)
    config.data.batch_size = 128
    config.train.remat = "kept"
    return config
