"""The schema, for every database that SQLAlchemy speaks to. Raise `VERSION` when it changes."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

VERSION = 2

metadata = MetaData()

#: Made when the first cache is opened on a store, so that it is no part of the version.
answers_metadata = MetaData()

_Number = BigInteger().with_variant(Integer, "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("fingerprint", Text, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("run", Integer, nullable=False, index=True),
    Column("started", Double, nullable=False),
    Column("ended", Double),
    Column("how", Text),
    Column("pid", Integer),
    Column("host", Text),
)

places = Table(
    "places",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("id", BigInteger, nullable=False, unique=True),
    Column("run", Integer, nullable=False, index=True),
    Column("path", Text, nullable=False),
    Column("visit", Integer, nullable=False),
)

#: Rows lie in the order in which they were added, which is near that of the input: a resumed run reads them
#: in sequence. Only the index is in the order of the keys; its columns are all that counting needs.
records = Table(
    "records",
    metadata,
    Column("seq", _Number, primary_key=True),
    Column("run", Integer, nullable=False),
    Column("place", BigInteger, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("session", Integer, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("label", Text),
    Column("began", Double, nullable=False),
    Column("at", Double, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("usage", Text),
    Column("checksum", BigInteger, nullable=False),
    UniqueConstraint("place", "key", "session", name="records_key"),
)

Index(
    "records_not_ok",
    records.c.place,
    records.c.key,
    records.c.kind,
    records.c.session,
    sqlite_where=text("kind <> 0"),
    postgresql_where=text("kind <> 0"),
)

deaths = Table(
    "deaths",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("place", BigInteger, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("session", Integer, nullable=False),
    Column("alone", Boolean, nullable=False),
    UniqueConstraint("place", "key", "session", name="deaths_key"),
)

#: Of two answers to one question only the later one is kept; the oldest have the lowest numbers.
answers = Table(
    "answers",
    answers_metadata,
    Column("seq", _Number, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    Column("at", Double, nullable=False),
    Column("expires", Double),
    Column("data", LargeBinary, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    UniqueConstraint("key", name="answers_key"),
)

Index(
    "answers_expires",
    answers.c.expires,
    sqlite_where=text("expires IS NOT NULL"),
    postgresql_where=text("expires IS NOT NULL"),
)
