"""The train step: the same however the batch is cut up, and safe where a number is not finite."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import PACKING, SMALL, random_batch, random_leaves, random_variables

from configs import tiny
from tml_jax.config import REMAT, Config, from_mapping
from tml_jax.model.attention import Packed
from tml_jax.model.backbone import Backbone
from tml_jax.model.count import count_parameters
from tml_jax.model.flow import normalise
from tml_jax.parallel.mesh import make_mesh
from tml_jax.tokens import Stream
from tml_jax.train import losses
from tml_jax.train.optimizer import make_optimizer
from tml_jax.train.step import Train, TrainState, make_train, mean_metrics

# Parts of the step by which a person reads a profile.
SCOPES = {
    "inputs", "attention", "mlp", "moe", "router", "dispatch", "experts", "combine", "shared_experts", "text_loss",
    "flow_loss", "flow", "optimizer", "balance",
}  # fmt: skip
ROWS = 4


def tiny_config(**train) -> Config:
    """The tiny model on small rows; nothing in the step is random but the flow, see `plain_flow`."""
    config = from_mapping(tiny.get_config())
    data = dataclasses.replace(config.data, packing=PACKING, batch_size=ROWS)
    fixed = dict(own_audio_noise=0.0, own_audio_drop=0.0, warmup_steps=0)
    return dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, **(fixed | train)))


def plain_flow(model, variables, hidden, log_mel, key, draws):
    """A flow loss without draws: the velocity half-way from zero to the target."""
    target = normalise(log_mel)
    half = jnp.full(target.shape[:2], 0.5)
    velocity = model.apply(variables, 0.5 * target, half, hidden, method="velocity")
    return jnp.mean((velocity - target) ** 2, axis=-1)


def make(config: Config) -> Train:
    return make_train(config, make_mesh(config.mesh, jax.devices()[:1]))


@pytest.fixture(scope="module", autouse=True)
def without_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "flow_loss", plain_flow)
        yield


@pytest.fixture(scope="module")
def train() -> Train:
    return make(tiny_config())


@pytest.fixture(scope="module")
def variables():
    return random_variables(tiny_config().model)


@pytest.fixture(scope="module")
def batch():
    return random_batch(tiny_config(), ROWS, 0)


def test_parts_of_the_step_have_names_in_a_profile(train, batch):
    program = train.step.lower(train.abstract_state, batch).as_text(debug_info=True)
    assert SCOPES <= set(re.findall(r"[/(]([a-z_]+)[/)]", program))


def fresh(train: Train, variables) -> TrainState:
    """A new state of these variables, to be consumed by a step."""
    optimizer = make_optimizer(tiny_config(moment_dtype=str(moments(train.abstract_state)["unembedding"].dtype)).train)
    params = variables["params"]
    state = TrainState(np.zeros((), np.int32), params, variables["balance"], optimizer.init(params))
    # Through numpy: a buffer that is already on the device would be taken over, and gone for the next test.
    return jax.tree.map(lambda x, like: jax.device_put(np.array(x), like.sharding), state, train.abstract_state)


def moments(state: TrainState):
    """The first moment: the clipped gradient of the first step, times 0.1."""
    return state.opt_state[1][0].mu


@pytest.fixture(scope="module")
def stepped(train, variables, batch):
    """State and metrics after one step."""
    return jax.device_get(train.step(fresh(train, variables), train.put_batch(batch)))


def close(found, wanted, share: float) -> None:
    """Every array equal to within a share of its largest entry."""
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        one, other = np.float32(one), np.float32(other)
        np.testing.assert_allclose(one, other, rtol=0, atol=share * np.abs(other).max() + 1e-9)


def test_a_step_moves_every_parameter_and_counts_itself(stepped, variables):
    state, metrics = stepped
    assert state.step == 1 and metrics["finite"] and metrics["grad_norm"] > 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]:
        before = variables["params"]
        for key in path:
            before = before[key.key]
        assert np.any(leaf != before), jax.tree_util.keystr(path)


def test_the_figures_of_a_step_are_counts_of_its_batch(stepped, batch):
    _, metrics = stepped
    assert metrics["micro_turns"] == np.sum(batch.stream == Stream.TIME)
    assert metrics["elements"] == np.sum(batch.stream > 0)
    assert metrics["learning_rate"] == np.float32(tiny_config().train.learning_rate)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2])
def test_accumulating_gradients_gives_the_update_of_one_batch(stepped, variables, batch, parts):
    config = tiny_config(accumulate=parts)
    train = make(config)
    state, metrics = jax.device_get(train.step(fresh(train, variables), train.put_batch(batch)))
    whole, whole_metrics = stepped
    for name in whole_metrics:
        np.testing.assert_allclose(metrics[name], whole_metrics[name], rtol=1e-5, err_msg=name)
    close(moments(state), moments(whole), 1e-4)
    jax.tree.map(np.testing.assert_array_equal, state.balance, whole.balance)


def test_a_step_that_is_not_finite_changes_nothing_and_says_so(train, variables, batch, stepped):
    audio_out = batch.audio_out.copy()
    audio_out[0, np.flatnonzero(batch.audio_out_from[0] >= 0)[0], 2, 7] = np.nan
    before = jax.device_get(fresh(train, variables))
    state, metrics = train.step(fresh(train, variables), train.put_batch(batch.replace(audio_out=audio_out)))
    assert not metrics["finite"]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), before)
    state, metrics = train.step(state, train.put_batch(batch))
    assert metrics["finite"]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), stepped[0])


def test_every_bias_moves_against_its_load_and_by_nothing_else(train, variables, batch):
    """All load is forced on the first two of four experts in every layer."""
    forced = jax.tree.map(
        lambda bias: jnp.broadcast_to(jnp.asarray([6.0, 5.0, 0.0, 0.0]), bias.shape), variables["balance"]
    )
    state, metrics = jax.device_get(
        train.step(fresh(train, {"params": variables["params"], "balance": forced}), train.put_batch(batch))
    )
    rate = tiny_config().train.balance_rate
    biases = np.concatenate([bias.reshape(-1, 4) for bias in jax.tree.leaves(state.balance)])
    assert len(biases) == 4  # sparse layers, some of them stacked
    for bias in biases:
        np.testing.assert_allclose(bias, np.float32([6 - rate, 5 - rate, rate, rate]), rtol=1e-6)
    assert metrics["expert_load_max"] == 2  # against the mean over four


def sums_of(train, variables, batch) -> dict:
    return jax.device_get(train.evaluate(fresh(train, variables), train.put_batch(batch)))


def test_the_loss_counts_outputs_and_nothing_else(train, variables, batch):
    before = sums_of(train, variables, batch)
    outputs, spoken = batch.output_from >= 0, batch.audio_out_from >= 0
    assert before["text_count"] == np.sum(batch.stream == Stream.TEXT_OUT) > 0
    assert before["gate_count"] == np.sum(batch.stream == Stream.GATE) > 0
    assert before["flow_count"] == np.sum(batch.stream == Stream.AUDIO_OUT) > 0

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 480, batch.output_token.shape).astype(np.int32)
    padding = batch.segment == 0
    assert padding.any() and not outputs.all() and not spoken.all()
    idle = batch.replace(
        output_token=np.where(outputs, batch.output_token, noise),
        audio_out=np.where(spoken[..., None, None], batch.audio_out, 0.7).astype(np.float32),
        token=np.where(padding, 5, batch.token),
        stream=np.where(padding, Stream.TEXT_OUT, batch.stream).astype(np.int8),
    )
    after = sums_of(train, variables, idle)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-6, err_msg=name)

    text = outputs & (batch.output_token < 480)
    other = sums_of(train, variables, batch.replace(output_token=np.where(text, noise, batch.output_token)))
    assert other["text_sum"] != before["text_sum"] and other["gate_sum"] == before["gate_sum"]
    sound = np.where(spoken[..., None, None], batch.audio_out + 0.1, batch.audio_out).astype(np.float32)
    assert sums_of(train, variables, batch.replace(audio_out=sound))["flow_sum"] != before["flow_sum"]


def test_the_loss_weighs_text_gates_and_flow_as_configured():
    sums = {"text_sum": 30.0, "text_count": 10.0, "text_right": 4.0, "gate_sum": 8.0, "gate_count": 16.0,
            "gate_right": 12.0, "flow_sum": 9.0, "flow_count": 6.0}  # fmt: skip
    metrics = mean_metrics(sums, tiny_config(text_weight=2.0, flow_weight=0.5))
    expected = (2 * 30 + 8) / (2 * 10 + 16) + 0.5 * 9 / 6
    assert metrics["loss"] == pytest.approx(expected)
    assert (metrics["text_loss"], metrics["gate_loss"], metrics["flow_loss"]) == (3, 0.5, 1.5)
    assert (metrics["text_accuracy"], metrics["gate_accuracy"]) == pytest.approx((0.4, 0.75))
    empty = mean_metrics(dict.fromkeys(sums, 0.0), tiny_config())
    assert not any(empty.values())  # a batch without outputs has no loss, and no NaN


@pytest.mark.slow
def test_bfloat16_comes_near_float32(stepped, variables, batch):
    config = tiny_config(compute_dtype="bfloat16", moment_dtype="bfloat16")
    train = make(config)
    state, metrics = jax.device_get(train.step(fresh(train, variables), train.put_batch(batch)))
    whole, whole_metrics = stepped
    assert metrics["finite"]
    assert metrics["loss"] != whole_metrics["loss"]
    assert metrics["loss"] == pytest.approx(whole_metrics["loss"], rel=0.02)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(state.params))
    one, other = (
        np.concatenate([np.float32(leaf).reshape(-1) for leaf in jax.tree.leaves(moments(s))]) for s in (state, whole)
    )
    assert jax.tree.leaves(moments(state))[0].dtype == jnp.bfloat16
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.98


@pytest.fixture(scope="module")
def loss_of_backbone():
    """Of one dense and two scanned sparse layers: `remat` → the traced value and gradients, and their arguments."""
    config = dataclasses.replace(SMALL, num_layers=3, global_every=1)
    x = np.random.default_rng(1).standard_normal((1, 64, config.d_model)).astype(np.float32)
    segment = np.sort(np.random.default_rng(2).integers(0, 3, (1, 64))).astype(np.int32)
    where = Packed(segment, np.arange(64, dtype=np.int32)[None])
    shapes = jax.eval_shape(Backbone(config).init, jax.random.key(0), x, where)
    assert "periods" in shapes["params"]
    variables = random_leaves(shapes, 2)

    def trace(remat: str):
        loss = lambda variables, x: jnp.sum(jnp.sin(Backbone(config, remat).apply(variables, x, where)[0]))  # noqa: E731
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).trace(variables, x), (variables, x)

    return trace


@pytest.mark.slow
@pytest.mark.parametrize("remat", REMAT[1:])
def test_recomputing_layers_changes_no_number(loss_of_backbone, remat):
    found, plain = (
        jax.device_get(traced.lower().compile()(*given)) for traced, given in map(loss_of_backbone, (remat, "none"))
    )
    close(found, plain, 1e-5)


def test_each_policy_computes_again_what_it_says(loss_of_backbone):
    programs = {remat: str(loss_of_backbone(remat)[0].jaxpr) for remat in REMAT}
    assert [remat for remat, program in programs.items() if "remat" in program] == ["dots", "kept", "block"]
    products = {remat: program.count("dot_general[") for remat, program in programs.items()}
    assert products["none"] == products["dots"] < products["kept"] < products["block"]
    choices = {remat: program.count("top_k[") for remat, program in programs.items()}
    assert choices["none"] == choices["kept"] < choices["block"]


def test_a_run_starts_with_the_parameters_that_were_counted(train):
    state = train.init(0)
    assert sum(leaf.size for leaf in jax.tree.leaves(state.params)) == sum(
        count_parameters(tiny_config().model).values()
    )
    found = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), state)
    assert found == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), train.abstract_state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
