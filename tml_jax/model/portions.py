"""A micro-turn cut so that what is empty costs nothing, where little is gained by doing all at once: on a CPU.

A session gives the same bits whatever is beside it: each of its elements goes through products of the same shapes.
The model's layers must not be scanned, or the caches of a session do not lie together.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tml_jax.model.inputs import ElementArrays


@dataclasses.dataclass(frozen=True)
class Portions:
    """How much is done at once.

    Attributes:
      elements: of the input block that are taken in at once; the rest follows only where a session has more.
      sessions: that write and speak at once. The first step of text is everybody's; who goes on is done so many at a
        time.
    """

    elements: int
    sessions: int


def append_some(
    append: Callable, elements: ElementArrays, length: jax.Array, valid: jax.Array, caches: Any, size: int, hidden: Any
) -> tuple[jax.Array, Any]:
    """Appends a block `size` elements at a time, until no session has more.

    Args:
      append: (elements, (B,) length, (B,) valid, caches) → (B, D) hidden state after the last, and caches.
      elements: (B, T), left-aligned.
      length: (B,) int32, elements before them.
      valid: (B,) int32, how many of them are real.
      caches: of every layer.
      size: of a portion.
      hidden: (B, D), of a session that has none.

    Returns:
      What `append` does of the whole block.
    """
    pad = lambda x: jnp.pad(x, ((0, 0), (0, -x.shape[1] % size)))  # noqa: E731
    places = {name: pad(getattr(elements, name)) for name in ("stream", "token", "slot")}

    def some(carry: tuple) -> tuple:
        first, before, caches = carry
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, size, axis=1)  # noqa: E731
        portion = elements.replace(**{name: cut(x) for name, x in places.items()})
        count = jnp.clip(valid - first, 0, size)
        after, caches = append(portion, length + jnp.minimum(valid, first), count, caches)
        return first + size, jnp.where((count > 0)[:, None], after, before), caches

    _, after, caches = jax.lax.while_loop(lambda carry: carry[0] < jnp.max(valid), some, (jnp.int32(0), hidden, caches))
    return after, caches


def some_go_on(
    go_on: Callable, state: Any, noise: jax.Array, goes_on: jax.Array, together: int, made: jax.Array
) -> tuple[Any, jax.Array]:
    """Those of B sessions that go on, `together` of them at a time.

    Args:
      go_on: (state, noise, (together,) bool, those of the sessions that it is for) → state, and what they have made.
      state: arrays with a first axis of B.
      noise: (B, …), given to each.
      goes_on: (B,) bool.
      together: at most B.
      made: (B, …), of those that do not go on.

    Returns:
      The state, and what was made.
    """
    batch = len(noise)
    order, count = jnp.argsort(~goes_on, stable=True), jnp.sum(goes_on)

    def some(carry: tuple) -> tuple:
        first, state, made = carry
        start = jnp.minimum(first, batch - together)  # the last ones, where those before have been done
        rows = jax.lax.dynamic_slice_in_dim(order, start, together)
        chosen = (start + jnp.arange(together) >= first) & goes_on[rows]
        part, new = go_on(jax.tree.map(lambda whole: whole[rows], state), noise[rows], chosen)
        state = jax.tree.map(lambda whole, part: whole.at[rows].set(part), state, part)
        new = jnp.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, made[rows])
        return first + together, state, made.at[rows].set(new)

    _, state, made = jax.lax.while_loop(lambda carry: carry[0] < count, some, (jnp.int32(0), state, made))
    return state, made
