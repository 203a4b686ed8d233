"""`--schema`: a JSON schema from a file, checked before anybody is asked to satisfy it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asyncflow.cli.usage import UsageError
from asyncflow.llm.schema_check import problem_of

_OF_SCHEMAS = ("anyOf", "oneOf", "allOf")


def schema_in(path: Path) -> dict[str, Any]:
    """The schema in a file.

    Raises:
        UsageError: If there is none that can be used; the text says where in it.
    """
    try:
        schema = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise UsageError(f"--schema {path}: {exc.strerror}") from exc
    except json.JSONDecodeError as exc:
        raise UsageError(f"--schema {path}:{exc.lineno}: not JSON: {exc.msg}") from exc
    except (UnicodeDecodeError, RecursionError) as exc:
        raise UsageError(f"--schema {path}: not JSON: {exc}") from exc
    if not isinstance(schema, dict):
        raise UsageError(f'--schema {path}: a JSON schema is an object, such as {{"type": "object", …}}')
    if not {"type", "properties", "enum", "const", "$ref", *_OF_SCHEMAS} & schema.keys():
        raise UsageError(f'--schema {path}: it demands nothing: a schema has a "type", or "properties"')
    problem = problem_of(schema, schema)
    if problem:
        raise UsageError(f"--schema {path}: {problem}")
    return schema
