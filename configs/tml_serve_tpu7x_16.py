"""TML-Interaction-Small served by 16 TPU7x chips, 32 devices (tpu7x:2x2x4).

python -m launch.compile --config=configs/tml_serve_tpu7x_16.py --topology=tpu7x:2x2x4 --step=serve --sessions=1
"""

from ml_collections import ConfigDict

from configs import tml_interaction_small


def get_config() -> ConfigDict:
    """The flagship, laid over these chips for streaming."""
    config = tml_interaction_small.get_config()
    config.name = "tml_serve_tpu7x_16"
    config.serve.dtype = "bfloat16"
    config.serve.mesh = dict(expert=4, tensor=8)
    return config
