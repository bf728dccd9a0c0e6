"""Parameter counts: the published sizes, and the counting against arithmetic."""

import jax
import pytest
from small import SMALL, random_variables

from configs import inkling_small, tml_interaction_small
from tml_jax.config import ModelConfig, from_mapping
from tml_jax.model.count import PARTS, active_parameters, count_parameters


def model_of(module) -> ModelConfig:
    return from_mapping(module.get_config()).model


def by_hand(c: ModelConfig) -> dict[str, int]:
    """The parts, from the description of the architecture."""
    d, layers, sparse = c.d_model, c.num_layers, c.num_layers - c.num_dense_layers
    heads, kv, width = c.num_heads, c.num_kv_heads, c.head_dim
    extents = sum(c.rel_extent if c.is_global(layer) else c.window for layer in range(layers))
    attention = 2 * d * heads * width + 2 * d * kv * width + d * heads * c.d_rel  # query and out, key and value, bias
    attention += 2 * width + 2 * c.conv_kernel * kv * width  # norms of query and key, convolutions of key and value
    return {
        "text embedding": c.vocab_size * d,
        "audio embedding": 80 * 16 * d + d,
        "own-audio embedding": 400 * 16 * d + d,
        "attention": layers * attention + c.d_rel * extents,
        "dense MLPs": c.num_dense_layers * (3 * d * c.dense_ffn + 1),
        "routers": sparse * (d * (c.num_experts + c.num_shared_experts) + 1),
        "routed experts": sparse * c.num_experts * 3 * d * c.expert_ffn,
        "shared experts": sparse * c.num_shared_experts * 3 * d * c.expert_ffn,
        "branch convolutions": layers * 2 * c.conv_kernel * d,
        "norms": layers * 2 * d + 2 * d,  # two a layer, the last one and that of the text table
        "unembedding": c.vocab_size * d,
    }


@pytest.mark.parametrize("config", [SMALL, model_of(tml_interaction_small)], ids=["small", "tml_interaction_small"])
def test_parts_are_what_the_architecture_says(config):
    counts, expected = count_parameters(config), by_hand(config)
    assert {part: counts[part] for part in expected} == expected
    assert list(counts) == list(PARTS) and all(counts.values())


def test_tml_interaction_small_has_276_billion_parameters_of_which_12_are_active():
    config = model_of(tml_interaction_small)
    counts = count_parameters(config)
    assert sum(counts.values()) == pytest.approx(276e9, rel=0.01)
    assert active_parameters(config, counts) == pytest.approx(12e9, rel=0.05)


def test_inkling_small_has_263_7_billion_parameters():
    assert sum(count_parameters(model_of(inkling_small)).values()) == pytest.approx(263.7e9, rel=0.005)


def test_every_parameter_is_counted_once():
    params = random_variables(SMALL)["params"]
    assert sum(count_parameters(SMALL).values()) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_a_token_meets_its_top_experts_and_no_input_but_its_own():
    counts = count_parameters(SMALL)
    idle = ("audio embedding", "own-audio embedding", "patch network", "flow head", "text embedding", "routed experts")
    expected = sum(number for part, number in counts.items() if part not in idle)
    expected += counts["routed experts"] // SMALL.num_experts * SMALL.top_k
    assert active_parameters(SMALL, counts) == expected
