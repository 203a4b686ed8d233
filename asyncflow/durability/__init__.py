"""What survives a crash: results are recorded as they come, and the same run goes on where it was.

journal   one run's memory, as the engine asks for it; `opening` gets one, `place` is a node's part of it
codec     values to JSON and back, exactly, never executed; `shapes`, `arrays`
keys      which item is this?; `seen` counts equal ones
store     the port: `memory`; over SQLAlchemy `sqlstore` (one SQLite file, `sqlite`) and `postgres`, which
          share `tables`, `migrations`, `sqlwriter` and `sqlreader`, and differ in `dialects`
writer    one thread, group commit; `recall` reads back
lock      one writing process per store; `marks` and `crashes`: what was in flight when one died
responses a model's answers used again: `outbox` on their way in, `lookup` out, `sqlanswers`
resume    may this program go on with that run?; `runs`: ids and status; `saying`: what people are told
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow.durability.codec import Codec, Encoder
from asyncflow.durability.journal import RunJournal
from asyncflow.durability.memory import MemoryStore
from asyncflow.durability.opening import as_store, open_journal, open_run
from asyncflow.durability.responses import CacheStatistics, ResponseCache
from asyncflow.durability.resume import Difference, Fingerprint, compare, facts_of, of_outline
from asyncflow.durability.runs import new_run_id, resolve, status
from asyncflow.durability.saying import Counts, banner, how_to_resume
from asyncflow.durability.store import Store
from asyncflow.engine.journal import Changed, RetryFailed

if TYPE_CHECKING:
    from asyncflow.durability.postgres.store import PostgresStore
    from asyncflow.durability.sqlstore import SQLStore

__all__ = [
    "CacheStatistics",
    "Changed",
    "Codec",
    "Counts",
    "Difference",
    "Encoder",
    "Fingerprint",
    "MemoryStore",
    "PostgresStore",
    "ResponseCache",
    "RetryFailed",
    "RunJournal",
    "SQLStore",
    "Store",
    "as_store",
    "banner",
    "compare",
    "facts_of",
    "how_to_resume",
    "new_run_id",
    "of_outline",
    "open_journal",
    "open_run",
    "resolve",
    "status",
]


def __getattr__(name: str) -> Any:
    """SQLAlchemy takes 150 ms to import; whoever needs no store does not pay for it."""
    if name == "SQLStore":
        from asyncflow.durability.sqlstore import SQLStore

        return SQLStore
    if name == "PostgresStore":
        from asyncflow.durability.postgres.store import PostgresStore

        return PostgresStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
