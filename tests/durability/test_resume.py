"""May this program go on with that run?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asyncflow.durability import (
    Counts,
    Fingerprint,
    MemoryStore,
    SQLStore,
    banner,
    compare,
    facts_of,
    how_to_resume,
    of_outline,
    open_run,
)
from asyncflow.durability.crashes import verdict
from asyncflow.durability.resume import code_digest
from asyncflow.durability.runs import new_run_id, resolve, status
from asyncflow.durability.store import RunRow, Session
from asyncflow.errors import ResumeMismatchError
from asyncflow.graph.flow import Flow
from asyncflow.graph.node import Node
from asyncflow.graph.outline import outline


class A(Node):
    pass


class B(Node):
    pass


def program(
    *, loop: bool = False, second: type[Node] = B, facts: dict[str, dict[str, str]] | None = None
) -> Fingerprint:
    a, b = A(), second()
    a >> b
    if loop:
        b - "again" >> a
    return of_outline(outline(Flow(start=a)), facts or {})


def texts(before: Fingerprint, now: Fingerprint) -> list[str]:
    return [each.text for each in compare(before, now)]


def test_the_same_program_has_no_differences() -> None:
    """Also after a trip through the store's text."""
    before = program(facts={"Flow/A": facts_of([str.upper], params={"x": 1})})
    assert texts(before, Fingerprint.from_text(before.to_text())) == []


def test_each_difference_is_a_sentence() -> None:
    """Joints, nodes, code, versions and parameters; each names its node."""
    assert texts(program(), program(loop=True)) == ["now: Flow: B - 'again' >> A"]
    assert texts(program(), program(second=A)) == [
        "Flow/B is gone",
        "Flow/A#2 is new",
        "no longer: Flow: A - 'default' >> B",
        "now: Flow: A - 'default' >> A#2",
    ]
    then = program(
        facts={"Flow/A": facts_of([str.upper], params={"x": 1}), "Flow/B": facts_of([], version=1)}
    )
    now = program(facts={"Flow/A": facts_of([str.lower], params={"x": 2}), "Flow/B": facts_of([], version=2)})
    assert texts(then, now) == [
        "Flow/A: the code of exec has changed",
        "Flow/A: the parameter 'x' has changed",
        "Flow/B: version was 1, is 2",
    ]


def defined(source: str, path: Path) -> Callable[..., Any]:
    """A function from a file, so that it has source."""
    path.write_text(source)
    namespace: dict[str, Any] = {}
    exec(compile(source, str(path), "exec"), namespace)
    return namespace["f"]  # type: ignore[no-any-return]


def test_only_code_counts(tmp_path: Path) -> None:
    """Comments, layout, docstrings, the line and the file do not; a constant does."""
    plain = code_digest(defined("def f(x):\n    return x + 1\n", tmp_path / "a.py"))
    same = '\n\ndef f(x):\n    "Says."\n    # why\n    return (x +\n            1)\n'
    assert code_digest(defined(same, tmp_path / "b.py")) == plain
    assert code_digest(defined("def f(x):\n    return x + 2\n", tmp_path / "c.py")) != plain
    assert (
        code_digest(functools.partial(defined("def f(x):\n    return x + 1\n", tmp_path / "d.py"), 1))
        == plain
    )


def test_code_without_source_still_counts() -> None:
    """Lambdas and functions of a console by their byte code, builtins by name, callables by their class."""
    one, two, three = lambda x: x + 1, lambda x: x + 2, lambda x: x + 1
    assert code_digest(one) == code_digest(three) != code_digest(two)
    assert code_digest(len) == code_digest(len) != code_digest(max)

    class Call:
        def __call__(self, x: int) -> int:
            return x

    assert code_digest(Call()) == code_digest(Call())


def test_a_changed_program_is_refused_kept_or_dropped() -> None:
    """Refused, nothing is written; kept, results count; dropped, those of changed nodes never do."""
    from asyncflow.engine.driver import BlockingHost, drive
    from asyncflow.outcome import Ok

    store = MemoryStore()
    old = program(facts={"Flow/A": facts_of([str.upper]), "Flow/B": facts_of([str.upper])})
    new = program(facts={"Flow/A": facts_of([str.lower]), "Flow/B": facts_of([str.upper])})
    newer = program(facts={"Flow/A": facts_of([str.lower]), "Flow/B": facts_of([str.lower])})

    def known(fingerprint: Fingerprint | None, **options: Any) -> dict[str, bool]:
        with open_run(store, "r", fingerprint=fingerprint, **options) as journal:
            found = {}
            for name in ("A", "B"):
                host = BlockingHost()
                place = journal.place(
                    ("Flow", "visit 2", "0f" * 16, name), 0, host, key=None, result_type=None
                )
                key = place.key_of("x")
                found[name] = drive(host, place.recall(key)) is not None
                if not found[name] and not options.get("look"):
                    place.commit(key, Ok(1), lambda error: None)
            return found

    assert known(old) == {"A": False, "B": False}
    with pytest.raises(ResumeMismatchError, match="the code of exec") as caught:
        known(new)
    assert caught.value.differences == ("Flow/A: the code of exec has changed",)
    assert len(store.open_reader().runs()[0].sessions) == 1
    assert known(new, changed="keep") == {"A": True, "B": True}
    assert known(new) == {"A": True, "B": True}
    assert known(newer, changed="drop") == {"A": True, "B": False}
    assert known(newer) == {"A": True, "B": True}
    assert known(None) == {"A": True, "B": True}
    with pytest.raises(ResumeMismatchError):
        known(old)


def test_the_banner_says_what_is_kept_and_what_will_run() -> None:
    """In the words of the goal; parts that are nothing are left out."""
    assert banner(Counts(5)) == "5 done and kept"
    assert banner(Counts(1, 2, 1, 1), 4, retry_failed=False) == (
        "1 of 4 done and kept, 2 failed stay failed, 1 was in flight, 1 under suspicion of ending the process"
    )


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("runs.db", "runs.db"),
        (SQLStore("a/runs.db"), "a/runs.db"),
        ("postgresql://me:hush@host:5433/jobs?sslkey=hush", "postgresql://me@host:5433/jobs"),
        ("sqlite:///a/runs.db", "sqlite:///a/runs.db"),
    ],
)
def test_how_to_go_on_names_the_store_without_its_password(store: Any, shown: str) -> None:
    """Where the program does not name its run: with the call that does."""
    text = how_to_resume("r", store, given=False)
    assert text == f"run r is kept in {shown}; to go on with it: run_sync(…, store={shown!r}, run_id='r')"


def test_run_ids_sort_by_time_and_read_well() -> None:
    """UTC, a slug of the name, four characters; any name makes one."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert new_run_id("Äpfel / Birnen", moment, "0000") == "20260102-030405-pfel-birnen-0000"
    assert new_run_id("日本", moment, "0000") == "20260102-030405-run-0000"
    assert len({new_run_id("x") for _ in range(20)}) > 15


def test_an_id_is_found_by_any_unique_prefix() -> None:
    """Or as @last; an ambiguous one names those that fit."""
    ids = ["2026-a", "2026-ab", "2025-c"]
    assert [resolve(text, ids) for text in ("2025", "2026-a", "@last")] == ["2025-c", "2026-a", "2025-c"]
    for text, among, says in (("2026", ids, "2 runs"), ("x", ids, "no run"), ("@last", [], "no runs yet")):
        with pytest.raises(LookupError, match=says):
            resolve(text, among)


def test_a_killed_run_is_never_running() -> None:
    """Only an open session under a held lock runs."""

    def run(*hows: str | None) -> RunRow:
        return RunRow(1, "a", "n", 1.0, "{}", tuple(Session(n, 1.0, None, how) for n, how in enumerate(hows)))

    assert status(run("finished", None), held=True) == "running"
    assert status(run("finished", None), held=False) == "interrupted"
    assert status(run("interrupted"), held=True) == "interrupted"
    assert status(run(None, "failed"), held=True) == "failed"
    assert status(run(), held=True) == "interrupted"


def test_only_a_lone_death_after_the_third_is_the_items_own() -> None:
    """The rule, case by case."""
    cases = {
        (): "run",
        (True, True): "run",
        (False,) * 3: "alone",
        (True,) * 3: "alone",
        (False,) * 5: "alone",
        (True, False, False, True): "quarantine",
        (False,) * 4 + (True,): "quarantine",
    }
    assert {deaths: verdict(deaths) for deaths in cases} == cases
