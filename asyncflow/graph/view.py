"""`SharedView`: one run's private view of `shared`. Reads fall through, writes stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any


class SharedView(MutableMapping[Any, Any]):
    """A view that `isolate=True` gives to each run of a parallel batch flow.

    What is set or deleted here is seen here only. It is shallow: a list inside `shared` is the same list.

    Attributes:
        changes: What was set here.

    Example:
        >>> shared = {"a": 1, "b": 2}
        >>> view = SharedView(shared)
        >>> view["a"] = 10
        >>> del view["b"]
        >>> dict(view), shared
        ({'a': 10}, {'a': 1, 'b': 2})
    """

    def __init__(self, shared: Mapping[Any, Any]) -> None:
        self._shared = shared
        self.changes: dict[Any, Any] = {}
        self._deleted: set[Any] = set()

    def __getitem__(self, key: Any) -> Any:
        if key in self.changes:
            return self.changes[key]
        if key in self._deleted:
            raise KeyError(key)
        return self._shared[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes[key] = value
        self._deleted.discard(key)

    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        self.changes.pop(key, None)
        self._deleted.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self.changes or (key not in self._deleted and key in self._shared)

    def __iter__(self) -> Iterator[Any]:
        for key in self._shared:
            if key not in self._deleted:
                yield key
        for key in self.changes:
            if key not in self._shared or key in self._deleted:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"SharedView({dict(self)!r})"
