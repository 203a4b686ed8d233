"""Which row is this? What is asked of it, as text, and how often that came before.

So a row is known again wherever it stands in the file, in whatever format the file is, and whatever else its
columns hold; only where what it asks has changed it is another row. Or by a column of the user's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from asyncflow.cli.map.rows import Row, RowsError
from asyncflow.cli.tables.values import as_text
from asyncflow.durability.keys import canonical
from asyncflow.durability.seen import Seen

#: The longest key; of longer content the beginning is kept for people, and a digest.
_LONGEST = 160


def keyed(rows: Iterable[Row], columns: tuple[str, ...], *, unique: bool) -> Iterator[Row]:
    """The rows with their keys.

    Args:
        rows: All of them, from the first, because equal ones are counted.
        columns: Whose values are the key.
        unique: Whether they are the user's word for the row, which may not come twice.

    Memory: about 20 bytes a row.

    Raises:
        RowsError: At the second row of a key that must be unique.

    Example:
        >>> rows = [Row("a:1", {"text": "Hi"}), Row("a:2", {"text": "Hi"})]
        >>> [row.key for row in keyed(rows, ("text",), unique=False)]
        ['{"text":"Hi"}', '{"text":"Hi"} #2']
        >>> [row.key for row in keyed(rows[:1], ("text",), unique=True)]
        ['Hi']
    """
    seen = Seen()
    for number, row in enumerate(rows):
        texts = {name: as_text(row.values[name]) for name in columns}
        whole = next(iter(texts.values())) if unique and len(texts) == 1 else canonical(texts)
        digest = blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16)
        key = whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 33]}…{digest.hexdigest()}"
        count = seen.add(digest.digest())
        if count > 1:
            if unique:
                raise RowsError(
                    f"{row.where}: --key {','.join(columns)}: {key!r} came before; a key is of one row. "
                    "Without --key rows are known by what is asked of them, and equal ones are counted"
                )
            key = f"{key} #{count}"
        yield Row(row.where, row.values, key, number)
