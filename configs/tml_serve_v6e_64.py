"""TML-Interaction-Small served by 64 v6e chips (v6e:8x8).

python -m launch.compile --config=configs/tml_serve_v6e_64.py --topology=v6e:8x8 --step=serve --sessions=1
"""

from ml_collections import ConfigDict

from configs import tml_interaction_small


def get_config() -> ConfigDict:
    """The flagship, laid over these chips for streaming."""
    config = tml_interaction_small.get_config()
    config.name = "tml_serve_v6e_64"
    config.serve.dtype = "bfloat16"
    config.serve.mesh = dict(expert=8, tensor=8)
    return config
