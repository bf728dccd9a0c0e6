"""The items of one conversation, in order and bounded: the oldest are forgotten first."""

from collections.abc import Iterator
from typing import Any

from tml_jax.serve.session_settings import Object

MAX_ITEMS = 1000
MAX_CHARACTERS = 2**20  # of text in all of them


class Items:
    """Items by their id, oldest first."""

    def __init__(self) -> None:
        """None yet."""
        self._items: dict[str, Object] = {}
        self._sizes: dict[str, int] = {}
        self._size = 0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    @property
    def characters(self) -> int:
        """Of text in all of them."""
        return self._size

    @property
    def last(self) -> str | None:
        """Id of the last."""
        return next(reversed(self._items), None)

    def get(self, item_id: str) -> Object | None:
        """An item; None where there is none of this id, or no longer."""
        return self._items.get(item_id)

    def put(self, item: Object) -> None:
        """Keeps an item: in its place where there was one of its id, otherwise at the end."""
        size = characters(item)
        self._size += size - self._sizes.get(item["id"], 0)
        self._items[item["id"]], self._sizes[item["id"]] = item, size
        while len(self._items) > MAX_ITEMS or (self._size > MAX_CHARACTERS and len(self._items) > 1):
            self.remove(next(iter(self._items)))

    def insert(self, item: Object, previous: str | None) -> None:
        """Keeps a new item after another one, or first."""
        if previous != self.last:
            ids = list(self._items)
            first = 0 if previous is None else ids.index(previous) + 1
            later = {other: self._items.pop(other) for other in ids[first:]}
            self._items |= {item["id"]: item, **later}
        self.put(item)

    def remove(self, item_id: str) -> None:
        """Forgets an item that is there."""
        del self._items[item_id]
        self._size -= self._sizes.pop(item_id)


def characters(value: Any) -> int:
    """Characters of all texts in a JSON value."""
    if isinstance(value, str):
        return len(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(characters, inner))
