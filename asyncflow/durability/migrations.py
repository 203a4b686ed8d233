"""How a store of an older version becomes one of today's: for each version, what makes the next one of it.

The statements are in the words that SQLite and PostgreSQL share. A step is never changed once it was
released; a new one raises `tables.VERSION`. `tables` says how a new store is made; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import Connection

from asyncflow.durability.tables import VERSION

STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE sessions ADD COLUMN pid INTEGER",
        "ALTER TABLE sessions ADD COLUMN host TEXT",
    ),
}

OLDEST = min(STEPS)


def migrate(connection: Connection, version: int) -> None:
    """Carry out all steps from `version` on. The transaction is the caller's."""
    for step in range(version, VERSION):
        for statement in STEPS[step]:
            connection.exec_driver_sql(statement)


def refusal(what: str, version: int) -> str:
    """Why a store of a version that cannot be used is refused, and what to do."""
    if version > VERSION:
        todo = "update asyncflow (pip install --upgrade asyncflow-engine), or name another store"
    elif version < OLDEST:
        todo = "it cannot be migrated: name another store"
    else:
        todo = "it is migrated when it is next opened for writing, by any run on it"
    return (
        f"{what} has version {version} of the schema, this asyncflow knows {VERSION}: {todo}. "
        "It was left as it is"
    )
