"""The flow head: its target, its integration and its loss."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SMALL, random_leaves

from tml_jax.model.flow import TARGET, FlowHead, denormalise, normalise, time_embedding
from tml_jax.model.interaction import InteractionModel
from tml_jax.train.losses import flow_loss

rng = np.random.default_rng
STEPS = (1, 2, 4, 7)


class Field(InteractionModel):
    """The model with another velocity: a function of (noisy, time, hidden)."""

    field: object = None

    def setup(self):
        """No parts, so no weights."""

    def conditions(self, time, hidden):
        return jnp.broadcast_to(time, jnp.broadcast_shapes(time.shape, hidden.shape[:-1])), jnp.broadcast_to(
            hidden, (*jnp.broadcast_shapes(time.shape, hidden.shape[:-1]), hidden.shape[-1])
        )

    def velocity_under(self, noisy, conditions):
        return self.field(noisy, *conditions)


def integrate(field, steps: int, noise, hidden=None):
    model = Field(dataclasses.replace(SMALL, flow_steps=steps), field=field)
    hidden = jnp.zeros((*noise.shape[:-1], SMALL.d_model)) if hidden is None else hidden
    return model.apply({}, noise, hidden, method="mel")


@pytest.mark.parametrize("steps", STEPS)
def test_a_constant_velocity_carries_noise_to_noise_plus_velocity(steps):
    noise, velocity = rng(0).standard_normal((2, 3, TARGET)).astype(np.float32)
    np.testing.assert_allclose(integrate(lambda *_: velocity, steps, noise), noise + velocity, atol=1e-5)


@pytest.mark.parametrize("steps", STEPS)
def test_the_velocity_of_straight_paths_to_one_target_ends_at_the_target(steps):
    noise, target = rng(1).standard_normal((2, 3, TARGET)).astype(np.float32)
    field = lambda x, time, _: (target - x) / (1 - time[..., None])  # noqa: E731
    np.testing.assert_allclose(integrate(field, steps, noise), target, atol=1e-4)


@pytest.mark.parametrize("steps", STEPS)
def test_euler_steps_begin_at_time_zero_and_see_where_they_are(steps):
    noise = rng(2).standard_normal((3, TARGET)).astype(np.float32)
    np.testing.assert_allclose(integrate(lambda x, *_: -x, steps, noise), (1 - 1 / steps) ** steps * noise, atol=1e-5)
    ramp = integrate(lambda x, time, _: jnp.broadcast_to(time[..., None], x.shape), steps, noise) - noise
    np.testing.assert_allclose(ramp, (steps - 1) / (2 * steps), atol=1e-5)


def test_the_hidden_state_of_each_element_drives_its_own_flow():
    hidden = rng(3).standard_normal((4, SMALL.d_model)).astype(np.float32)
    field = lambda x, _, hidden: jnp.broadcast_to(hidden[..., :1], x.shape)  # noqa: E731
    found = integrate(field, 4, np.zeros((4, TARGET), np.float32), hidden)
    np.testing.assert_allclose(found, np.broadcast_to(hidden[:, :1], (4, TARGET)), atol=1e-5)


def test_denormalising_undoes_normalising_and_keeps_to_the_range():
    sound = rng(4).uniform(-5, 1, (2, 3, 5, 80)).astype(np.float32)
    target = normalise(sound)
    assert target.shape == (2, 3, TARGET)
    np.testing.assert_allclose(denormalise(target), sound, atol=1e-5)
    np.testing.assert_array_equal(target[1, 2, 80:160], normalise(np.broadcast_to(sound[1, 2, 1], (5, 80)))[:80])
    wild = denormalise(jnp.asarray([-1e9, 1e9, jnp.inf, -jnp.inf]).repeat(100))
    np.testing.assert_array_equal(np.unique(wild), [-5, 1])


def test_times_apart_have_embeddings_apart():
    embedding = np.asarray(time_embedding(jnp.linspace(0, 1, 101), 128))
    assert embedding.shape == (101, 128) and np.abs(embedding).max() <= 1
    distance = np.linalg.norm(embedding[:, None] - embedding[None], axis=-1)
    assert distance[~np.eye(101, dtype=bool)].min() > 0.5


@pytest.fixture(scope="module")
def head():
    module = FlowHead(SMALL)
    arguments = jnp.zeros((2, TARGET)), jnp.zeros((2,)), jnp.zeros((2, SMALL.d_model))
    return module, jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments))


def test_the_velocity_depends_on_place_time_and_state_of_its_own_row(head):
    module, shapes = head
    variables = random_leaves(shapes, 5)
    noisy, time = rng(6).standard_normal((2, TARGET)).astype(np.float32), np.float32([0.2, 0.7])
    hidden = rng(7).standard_normal((2, SMALL.d_model)).astype(np.float32)
    run = jax.jit(module.apply)
    before = np.asarray(run(variables, noisy, time, hidden))
    assert before.dtype == np.float32
    for index in range(3):
        arguments = [noisy.copy(), time.copy(), hidden.copy()]
        arguments[index][0] += 0.1
        after = np.asarray(run(variables, *arguments))
        assert np.abs(after[0] - before[0]).max() > 1e-3
        np.testing.assert_array_equal(after[1], before[1])


def test_an_untrained_head_is_at_rest(head):
    """The last projection starts at zero, so that the first loss is that of no movement."""
    module, _ = head
    arguments = jnp.ones((1, TARGET)), jnp.ones((1,)), jnp.ones((1, SMALL.d_model))
    variables = jax.jit(module.init)(jax.random.key(0), *arguments)
    assert not np.any(jax.jit(module.apply)(variables, *arguments))
    assert np.any(variables["params"]["input_kernel"])


def loss_of(field, sound, draws: int):
    hidden = jnp.zeros((*sound.shape[:2], SMALL.d_model))
    return np.asarray(flow_loss(Field(SMALL, field=field), {}, hidden, sound, jax.random.key(0), draws))


def test_the_loss_is_zero_for_the_exact_velocity_and_only_there():
    sound = rng(9).uniform(-5, 1, (2, 3, 5, 80)).astype(np.float32)
    target = normalise(sound)[:, :, None]
    exact = lambda x, time, _: (target - x) / (1 - time[..., None])  # noqa: E731
    assert loss_of(exact, sound, 4).max() < 1e-6
    beside = lambda *arguments: exact(*arguments) + 0.5  # noqa: E731
    np.testing.assert_allclose(loss_of(beside, sound, 4), 0.25, rtol=1e-2)


def test_the_loss_of_no_movement_is_the_distance_between_noise_and_target():
    sound = rng(10).uniform(-5, 1, (1, 2, 5, 80)).astype(np.float32)
    found = loss_of(lambda x, *_: jnp.zeros_like(x), sound, 64)
    expected = 1 + np.mean(np.square(normalise(sound)), axis=-1)
    np.testing.assert_allclose(found, expected, rtol=0.03)
