"""`--shared`: what the flow is given, as JSON on the command line or in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asyncflow.cli.usage import UsageError


def shared_of(text: str | None) -> dict[str, Any]:
    """The object; an empty one where nothing is given.

    Raises:
        UsageError: If it is no JSON object.

    Example:
        >>> shared_of('{"a": [1]}'), shared_of(None)
        ({'a': [1]}, {})
    """
    if text is None:
        return {}
    where = "--shared"
    if not text.lstrip().startswith("{"):
        path = Path(text)
        where = f"--shared {path}"
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as exc:
            raise UsageError(
                f"{where}: {exc.strerror}; it is a JSON object, or a file that holds one"
            ) from exc
        except UnicodeDecodeError as exc:
            raise UsageError(f"{where}: not UTF-8: {exc.reason}") from exc
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise UsageError(f'{where}: an object is needed, such as {{"folder": "texts"}}')
    return value
