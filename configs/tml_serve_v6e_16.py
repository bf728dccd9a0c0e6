"""TML-Interaction-Small served by 16 v6e chips (v6e:4x4), its experts in eight bits.

python -m launch.compile --config=configs/tml_serve_v6e_16.py --topology=v6e:4x4 --step=serve --sessions=1
"""

from ml_collections import ConfigDict

from configs import tml_interaction_small


def get_config() -> ConfigDict:
    """The flagship, laid over these chips for streaming."""
    config = tml_interaction_small.get_config()
    config.name = "tml_serve_v6e_16"
    config.serve.dtype = "bfloat16"
    config.serve.weights = "int8"
    config.serve.mesh = dict(expert=4, tensor=4)
    return config
