"""AdamW with warm-up, decay and clipping (arXiv 1711.05101)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from tml_jax.config import TrainConfig


def schedule(config: TrainConfig) -> optax.Schedule:
    """Learning rate by step, as `TrainConfig.schedule` says."""
    peak, last = config.learning_rate, config.learning_rate * config.final_rate
    after = max(1, config.steps - config.warmup_steps)
    decay = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, last, after),
        "cosine": optax.cosine_decay_schedule(peak, after, config.final_rate),
    }[config.schedule]
    warmup = optax.linear_schedule(0.0, peak, max(1, config.warmup_steps))
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


def is_matrix(params: Any) -> Any:
    """True for the leaves that weight decay applies to: those with at least two axes."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The optimiser of a run. Its state mirrors the parameters, so it shards like them."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule(config),
            b1=0.9,
            b2=config.beta2,
            weight_decay=config.weight_decay,
            mask=is_matrix,
            mu_dtype=jnp.dtype(config.moment_dtype),
        ),
    )
