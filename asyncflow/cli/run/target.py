"""From `file.py:flow` to the flow: the file is imported, and what is wrong is said in one line."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from asyncflow.cli.usage import UsageError
from asyncflow.graph.base import BaseNode


def flow_at(target: str) -> tuple[BaseNode, Path, str]:
    """The flow or node, the file, and the name in it.

    The file's folder becomes the first of `sys.path`, as if the file were run; its name is not `__main__`.

    Raises:
        UsageError: If there is none: no such file, no such name, not a flow, or the file cannot be imported.
    """
    text, _, name = target.rpartition(":")
    if not text or (text.endswith(".py") is False and Path(target).exists()):
        text, name = target, ""
    path = Path(text)
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise UsageError(
            f"{path}: {what}; a flow is named by its file and its name in it, as in flows.py:flow"
        )
    module = _imported(path)
    if not name:
        raise UsageError(f"{path}: which flow? {_flows_in(module, path)}")
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{path}: it has no {name!r}; {_flows_in(module, path)}")
        found = getattr(found, part)
    return _checked(found, name, path), path, name


def _checked(found: object, name: str, path: Path) -> BaseNode:
    if isinstance(found, BaseNode):
        return found
    if isinstance(found, type):
        of_flows = issubclass(found, BaseNode)
        hint = f"; name an instance of it, such as flow = {found.__name__}()" if of_flows else ""
        raise UsageError(f"{path}:{name} is a class{hint}")
    if callable(found):
        raise UsageError(f"{path}:{name} is a function; name the flow itself, such as flow = {name}()")
    raise UsageError(f"{path}:{name} is of type {type(found).__name__}, neither a flow nor a node")


def _flows_in(module: ModuleType, path: Path) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, BaseNode)]
    if not names:
        return "there is no flow in it, on the outermost level"
    return "it has: " + ", ".join(f"{path}:{name}" for name in names)


def _imported(path: Path) -> ModuleType:
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem
    while name in sys.modules:  # a file called json.py
        name = f"{name}_"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as exc:
        raise UsageError(f"{exc.filename}:{exc.lineno}: not Python: {exc.msg}") from exc
    except KeyboardInterrupt:
        raise
    except SystemExit as exc:
        raise UsageError(
            f"{path}: it ends the process while it is imported (exit code {exc.code}); put what runs "
            'something under `if __name__ == "__main__":`'
        ) from exc
    except BaseException as exc:
        raise UsageError(f"{path}: importing it raised {described(exc)}{where(exc, path)}") from exc
    return module


def described(error: BaseException) -> str:
    """`ValueError: no`, or the class alone where it says nothing."""
    try:
        text = str(error)
    except Exception:  # the text of an exception is the user's code
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def where(error: BaseException, path: Path) -> str:
    """Where in the user's files it came from: the innermost line below the folder of `path`."""
    folder = path.resolve().parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_absolute() and file.is_relative_to(folder) and "site-packages" not in file.parts:
            return f" (at {file.relative_to(folder)}:{frame.lineno} in {frame.name})"
    return ""
