"""Where a PostgreSQL database is, and how to connect to it; the password is in no text that leaves here."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from asyncflow.errors import NotSupportedError, StoreError

if TYPE_CHECKING:
    from psycopg import Connection

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")

#: libpq's settings, where the URL has none: a server that is gone is noticed within a minute, on both sides.
_DEFAULTS = {
    "application_name": "asyncflow",
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
#: What chooses a server and a database there.
_PLACE = ("service", "host", "hostaddr", "port", "dbname", "user", "options")
#: The server's, in place of what a role or a database may have set: a commit that waits is not to be cut off.
_SERVER = " ".join(
    f"-c {setting}"
    for setting in (
        "tcp_keepalives_idle=20",
        "tcp_keepalives_interval=5",
        "tcp_keepalives_count=4",
        "statement_timeout=0",
        "lock_timeout=0",
        "idle_in_transaction_session_timeout=0",
    )
)


class Address:
    """A URL as libpq takes it: `postgresql://user:password@host:port/database?sslmode=require`.

    What it leaves out comes from libpq's own places: `PGPASSWORD`, `~/.pgpass`, a service file. Its text,
    `str(address)`, has no password and no parameters.

    Attributes:
        key: Equal for addresses of one place, with what libpq has from the environment now.

    Raises:
        NotSupportedError: If psycopg is not installed.
        StoreError: If the URL cannot be read; the text does not quote it.
    """

    def __init__(self, url: str) -> None:
        self._psycopg = _psycopg()
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES:
            raise NotSupportedError(f"not a PostgreSQL URL: it begins with {scheme[:20]!r}")
        self._url = f"postgresql://{rest}"
        authority = rest.partition("/")[0].partition("?")[0]
        try:
            # A password with @ or / in it moves parts of itself into the host or the database's name.
            if rest.count("@") > authority.count("@") or authority.count("@") > 1:
                raise ValueError
            parts = self._psycopg.conninfo.conninfo_to_dict(self._url)
            ports = str(parts.get("port") or "5432").split(",")
            if not all(port.isdigit() for port in ports):
                raise ValueError
        except (ValueError, self._psycopg.Error):
            raise StoreError(
                "the store's PostgreSQL URL cannot be read (it is not shown, as it may hold a password). Its "
                "form is postgresql://user:password@host:port/database; write @ / : ? # % in a password as "
                "%40 %2F %3A %3F %23 %25"
            ) from None
        self._set = {name for name, value in parts.items() if value is not None}
        self._options = str(parts.get("options") or "")
        self._hidden = [str(parts[name]) for name in ("password", "sslpassword") if parts.get(name)]
        self.key = _key(self._psycopg, parts)
        user, host = parts.get("user"), str(parts.get("host") or parts.get("hostaddr") or "")
        place = f"{host}:{','.join(ports)}" if host and not host.startswith("/") else host
        self._text = f"postgresql://{f'{user}@' if user else ''}{place}/{parts.get('dbname') or user or ''}"

    def connect(self, *, search_path: str, only_read: bool = False) -> Connection[Any]:
        """A connection in autocommit. Raises psycopg's own errors."""
        options = f"{self._options} {_SERVER} -c search_path={search_path}"
        if only_read:
            options += " -c default_transaction_read_only=on"
        settings = {name: value for name, value in _DEFAULTS.items() if name not in self._set}
        found: Connection[Any] = self._psycopg.connect(
            self._url, autocommit=True, client_encoding="UTF8", options=options.strip(), **settings
        )
        return found

    def without_password(self, text: object) -> str:
        """A text of the driver's, in one line, without what must not be seen."""
        shown = " ".join(str(text).split())
        for secret in self._hidden:
            shown = shown.replace(secret, "***")
        return shown

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return repr(self._text)


def _key(psycopg: Any, parts: dict[str, Any]) -> str:
    """A digest of the place: nothing of it can be read there."""
    place = {each.keyword.decode(): each.val for each in psycopg.pq.Conninfo.get_defaults()}
    place = {name: value.decode(errors="replace") for name, value in place.items() if value is not None}
    place |= {name: str(value) for name, value in parts.items() if value is not None}
    place.setdefault("dbname", place.get("user", ""))
    chosen = [place.get(name) for name in _PLACE] + [os.environ.get("PGSERVICEFILE")]
    return f"postgresql:{blake2b(repr(chosen).encode(errors='replace'), digest_size=16).hexdigest()}"


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError as exc:
        raise NotSupportedError(
            "a store on PostgreSQL needs psycopg 3: pip install 'asyncflow-engine[postgres]'"
            + ("" if isinstance(exc, ModuleNotFoundError) else f" (psycopg is there, but says: {exc})")
        ) from exc
    return psycopg


def is_postgres(url: str) -> bool:
    """Whether a text names a PostgreSQL database rather than a file."""
    scheme, found, _ = url.partition("://")
    return bool(found) and scheme in SCHEMES
