"""What every store promises, as checks for whoever writes one: each takes a store that holds nothing.

Example:
    >>> from asyncflow.testing import STORE_CHECKS, MemoryStore
    >>> for check in STORE_CHECKS:
    ...     check(MemoryStore())

A check raises AssertionError where the promise in its docstring is broken. With pytest, one test for each:

    @pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
    def test_contract(check, tmp_path):
        check(MyStore(tmp_path))
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from asyncflow.durability.marks import Mark
from asyncflow.durability.memory import MemoryStore
from asyncflow.durability.store import ACTION, AGAIN, FAILED, OK, Answer, PlaceRow, Record, Store
from asyncflow.errors import StoreLockedError

_PLACE = 2**62 + 5


def _key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def _record(
    n: int, session: int, kind: int = OK, run: int = 1, place: int = _PLACE, data: bytes = b"1"
) -> Record:
    return Record(run, place, _key(n), session, kind, 1, n, None, 1.0, 2.0, data, None)


@contextmanager
def _refused() -> Iterator[None]:
    """The block is refused because somebody is at work."""
    try:
        yield
    except StoreLockedError:
        return
    raise AssertionError("this should have been refused with StoreLockedError")


def _started(store: Store, run_id: str = "a") -> tuple[Any, int, int]:
    writer = store.open_writer()
    run, session = writer.start(run_id, "name", "{}", 10.0)
    return writer, run, session


def what_was_appended_is_found_and_nothing_else(store: Store) -> None:
    """`find` gives the whole record, byte for byte, and says nothing of keys that are not there."""
    writer, run, session = _started(store)
    whole = Record(
        run,
        _PLACE,
        _key(1),
        session,
        OK,
        3,
        7,
        "row-é\\0",
        1 / 3,
        1732112345.1234567,
        '{"é": "\\u0000"}'.encode(),
        '{"t":1}',
    )
    writer.append([PlaceRow(_PLACE, run, ("Flow", "Näme"), 0)], [whole])
    reader = store.open_reader()
    assert [
        found for _, found in reader.find([(_PLACE, _key(1)), (_PLACE, _key(2)), (_PLACE - 1, _key(1))])
    ] == [whole]
    assert reader.find([]) == []
    reader.close()
    writer.close()


def a_run_has_one_writer_until_it_is_closed(store: Store) -> None:
    """A second writer is refused, `holder` says that there is one, and after `close` the next may come."""
    assert store.holder() is None and store.holder("a") is None
    writer, _, session = _started(store)
    assert store.holder() and store.holder("a")
    with _refused():
        with closing(store.open_writer()) as second:
            second.start("a", "name", "{}", 11.0)
    writer.end(session, "finished", 12.0)
    writer.close()
    assert store.holder() is None and store.holder("a") is None
    writer, _, _ = _started(store)
    writer.close()


def a_session_tells_whose_it_is(store: Store) -> None:
    """Process and machine, for whoever finds the run at work or interrupted."""
    writer, _, _ = _started(store)
    reader = store.open_reader()
    row = reader.run("a")
    assert row is not None
    assert [(each.pid, each.host) for each in row.sessions] == [(os.getpid(), socket.gethostname())]
    reader.close()
    writer.close()


def a_run_is_opened_many_times_and_keeps_its_number(store: Store) -> None:
    """Sessions of a run count up; its name and creation stay, its fingerprint is the last one."""
    writer, run, first = _started(store)
    writer.end(first, "finished", 11.0)
    again, second = writer.start("a", "other name", '{"v":2}', 12.0)
    other, _ = writer.start("b", "name", "{}", 13.0)
    reader = store.open_reader()
    row = reader.run("a")
    assert again == run != other and second > first and row is not None
    assert (row.name, row.created, row.fingerprint) == ("name", 10.0, '{"v":2}')
    assert [(s.number, s.how, s.ended) for s in row.sessions] == [
        (first, "finished", 11.0),
        (second, None, None),
    ]
    assert [each.id for each in reader.runs()] == ["a", "b"]
    assert reader.run("c") is None
    reader.close()
    writer.close()


def a_session_that_nobody_closed_was_interrupted(store: Store) -> None:
    """The next opening of the run says so; a session that was closed keeps its word."""
    writer, _, first = _started(store)
    writer.end(first, "finished", 11.0)
    writer.start("a", "", "{}", 12.0)
    writer.close()
    writer = store.open_writer()
    _, last = writer.start("a", "", "{}", 13.0)
    writer.end(last, "finished", 14.0)
    writer.close()
    reader = store.open_reader()
    row = reader.run("a")
    assert row is not None and [(s.how, s.ended) for s in row.sessions] == [
        ("finished", 11.0),
        ("interrupted", None),
        ("finished", 14.0),
    ]
    reader.close()


def repeating_an_append_changes_nothing(store: Store) -> None:
    """The same key of the same session is kept as it was first written: a commit may be tried again."""
    writer, run, session = _started(store)
    rows = [_record(n, session, run=run) for n in range(5)]
    writer.append([PlaceRow(_PLACE, run, ("n",), 0)], rows)
    writer.append([PlaceRow(_PLACE, run, ("n",), 0)], [*rows, _record(9, session, run=run)])
    writer.append([], [_record(1, session, FAILED, run=run)])
    reader = store.open_reader()
    assert [found.key for _, found in reader.following(run, 0, 100)] == [_key(n) for n in (0, 1, 2, 3, 4, 9)]
    assert reader.find([(_PLACE, _key(1))])[0][1].kind == OK
    reader.close()
    writer.close()


def a_later_session_replaces_and_the_log_keeps_order(store: Store) -> None:
    """Of two records of a key the later session's counts, in `find`, `following` and `counts`."""
    writer, run, first = _started(store)
    writer.append(
        [PlaceRow(_PLACE, run, ("n",), 0)],
        [_record(n, first, FAILED if n == 2 else OK, run=run) for n in range(5)],
    )
    reader = store.open_reader()
    assert [(c.path, c.done, c.failed) for c in reader.counts(run)] == [(("n",), 4, 1)]
    _, second = writer.start("a", "", "{}", 12.0)
    writer.append([], [_record(2, second, run=run, data=b"2"), _record(99, second, ACTION, run=run)])
    ((seq, found),) = reader.find([(_PLACE, _key(2))])
    assert (found.session, found.data) == (second, b"2")
    assert [r.position for _, r in reader.following(run, 0, 100)] == [0, 1, 3, 4, 2, 99]
    assert [(c.done, c.failed) for c in reader.counts(run)] == [(5, 0)]
    assert [r.position for _, r in reader.following(run, seq, 100)] == [99]
    assert [s for s, _ in reader.following(run, 0, 2)] == [1, 2]
    reader.close()
    writer.close()


def runs_do_not_see_each_other(store: Store) -> None:
    """`following`, `counts` and `places` are of one run; `remove` takes one run away and no other."""
    writer, run, session = _started(store)
    other, other_session = writer.start("b", "", "{}", 11.0)
    places = [PlaceRow(_PLACE, run, ("n",), 0), PlaceRow(_PLACE + 1, other, ("m",), 1)]
    writer.append(
        places, [_record(1, session, run=run), _record(2, other_session, run=other, place=_PLACE + 1)]
    )
    reader = store.open_reader()
    assert [r.position for _, r in reader.following(other, 0, 10)] == [2]
    assert reader.places(run, 10) == [_PLACE]
    assert [(c.path, c.visit) for c in reader.counts(other)] == [(("m",), 1)]
    with _refused():
        writer.remove(other)
    writer.end(other_session, "finished", 12.0)
    writer.remove(other)
    assert reader.run("b") is None and reader.following(other, 0, 10) == []
    assert [r.position for _, r in reader.following(run, 0, 10)] == [1]
    reader.close()
    writer.close()


def deaths_are_of_items_without_a_result(store: Store) -> None:
    """An item in flight at a death is told once per session, until it has a result."""
    writer, run, session = _started(store)
    writer.append([PlaceRow(_PLACE, run, ("n",), 0)], [_record(1, session, run=run)])
    marks = [Mark(_key(n), _PLACE, session, 1) for n in (1, 2, 3)]
    writer.bury(marks)
    writer.bury(marks)
    _, second = writer.start("a", "", "{}", 12.0)
    writer.bury([Mark(_key(2), _PLACE, second, 1)])
    reader = store.open_reader()
    assert [(d.key, d.session, d.alone) for d in reader.deaths(run)] == [
        (_key(2), session, False),
        (_key(3), session, False),
        (_key(2), second, True),
    ]
    writer.append([], [_record(2, second, run=run)])
    assert [d.key for d in reader.deaths(run)] == [_key(3)]
    reader.close()
    writer.close()


def an_item_that_is_wanted_again_is_neither_done_nor_failed_nor_suspect(store: Store) -> None:
    """An `AGAIN` takes the place of what was there, and ends the story of earlier deaths only."""
    writer, run, first = _started(store)
    writer.append(
        [PlaceRow(_PLACE, run, ("n",), 0)],
        [_record(0, first, run=run), _record(1, first, FAILED, run=run)],
    )
    writer.bury([Mark(_key(2), _PLACE, first, 1)])
    _, second = writer.start("a", "", "{}", 12.0)
    writer.append([], [_record(n, second, AGAIN, run=run) for n in range(3)])
    reader = store.open_reader()
    assert [(c.done, c.failed, c.again) for c in reader.counts(run)] == [(0, 0, 3)]
    assert reader.deaths(run) == []
    assert {found.kind for _, found in reader.find([(_PLACE, _key(n)) for n in range(3)])} == {AGAIN}
    _, third = writer.start("a", "", "{}", 13.0)
    writer.bury([Mark(_key(2), _PLACE, third, 1)])
    writer.append([], [_record(0, third, run=run)])
    assert [(c.done, c.failed) for c in reader.counts(run)] == [(1, 0)]
    assert [d.session for d in reader.deaths(run)] == [third]
    reader.close()
    writer.close()


def a_snapshot_stands_still(store: Store) -> None:
    """Within `snapshot` nothing that is committed meanwhile is seen; after it, it is."""
    writer, run, session = _started(store)
    writer.append([PlaceRow(_PLACE, run, ("n",), 0)], [_record(1, session, FAILED, run=run)])
    reader = store.open_reader()
    with reader.snapshot():
        ((_, first),) = reader.following(run, 0, 10)
        _, second = writer.start("a", "", "{}", 12.0)
        writer.append([], [_record(n, second, run=run) for n in (1, 2)])
        assert [found for _, found in reader.following(run, 0, 10)] == [first]
    assert [found.kind for _, found in reader.following(run, 0, 10)] == [OK, OK]
    reader.close()
    writer.close()


def places_are_named(store: Store) -> None:
    """`named_places` gives number, path and visit of a run's places, in the order of coming."""
    writer, run, session = _started(store)
    rows = [PlaceRow(_PLACE, run, ("f", "ä"), 0), PlaceRow(_PLACE - 9, run, ("f", "ä"), 1)]
    writer.append(rows, [_record(n, session, run=run, place=row.id) for n, row in enumerate(rows)])
    reader = store.open_reader()
    assert reader.named_places(run) == rows and reader.named_places(run + 1) == []
    reader.close()
    writer.close()


def what_was_deleted_gives_its_space_back(store: Store) -> None:
    """`compact` keeps every record, and says the size before and after; a reader may be open meanwhile."""
    writer, run, session = _started(store)
    other, of_other = writer.start("b", "", "{}", 11.0)
    big = [_record(n, session, run=run, data=b'"%s"' % os.urandom(10_000).hex().encode()) for n in range(100)]
    writer.append([PlaceRow(_PLACE, run, ("n",), 0), PlaceRow(_PLACE + 1, other, ("n",), 0)], big)
    writer.append([], [_record(7, of_other, run=other, place=_PLACE + 1)])
    reader = store.open_reader()
    writer.end(session, "finished", 12.0)
    writer.remove(run)
    before, after = writer.compact()
    assert after <= before and (isinstance(store, MemoryStore) or after < before / 4)
    assert [r.position for _, r in reader.following(other, 0, 10)] == [7]
    reader.close()
    writer.close()


def groups_of_any_size_are_kept_whole(store: Store, many: int = 2500) -> None:
    """More rows than one statement takes are one transaction, and questions of any size are answered."""
    writer, run, session = _started(store)
    rows = [_record(n, session, run=run) for n in range(many)]
    writer.append([PlaceRow(_PLACE, run, ("n",), 0)], rows)
    reader = store.open_reader()
    assert {r.position for _, r in reader.find([(_PLACE, row.key) for row in rows])} == set(range(many))
    reader.close()
    writer.close()


def _answer(n: int, expires: float | None = None, data: bytes = b'{"a":1}') -> Answer:
    return Answer(_key(n), 1732112345.1234567, expires, data)


def answers_are_kept_beside_records(store: Store) -> None:
    """Byte for byte, the last one under a key; whoever prepares for them twice loses none."""
    writer, _, _ = _started(store)
    writer.prepare_answers()
    writer.keep_answers([_answer(n) for n in range(100)])
    writer.prepare_answers()
    changed = _answer(7, 2e9 + 0.25, '"é\\u0000"'.encode())
    writer.keep_answers([changed, _answer(200)])
    reader = store.open_reader()
    found = {one.key: one for one in reader.answers([_key(n) for n in (7, 8, 200, 300)])}
    assert found == {_key(7): changed, _key(8): _answer(8), _key(200): _answer(200)}
    assert reader.count_answers() == (101, 100 * 7 + len(changed.data))
    reader.close()
    writer.close()


def answers_go_by_age_and_by_number(store: Store) -> None:
    """Those that expired by a moment go; with `most` the oldest go, a replaced one being new; then all."""
    writer, _, _ = _started(store)
    writer.prepare_answers()
    writer.keep_answers([_answer(1, 5.0), _answer(2, 6.0), _answer(3)])
    writer.drop_answers(5.0)
    reader = store.open_reader()

    def left() -> set[int]:
        return {int.from_bytes(one.key, "big") for one in reader.answers([_key(n) for n in range(20)])}

    assert left() == {2, 3}
    writer.keep_answers([_answer(2)])
    writer.keep_answers([_answer(4)], most=2)
    assert left() == {2, 4}
    writer.keep_answers([_answer(n) for n in range(10, 15)], most=3)
    assert left() == {12, 13, 14}
    writer.drop_answers()
    assert left() == set() and reader.count_answers() == (0, 0)
    reader.close()
    writer.close()


#: All of them. The order means nothing.
STORE_CHECKS: tuple[Callable[[Store], None], ...] = (
    what_was_appended_is_found_and_nothing_else,
    a_run_has_one_writer_until_it_is_closed,
    a_session_tells_whose_it_is,
    a_run_is_opened_many_times_and_keeps_its_number,
    a_session_that_nobody_closed_was_interrupted,
    repeating_an_append_changes_nothing,
    a_later_session_replaces_and_the_log_keeps_order,
    runs_do_not_see_each_other,
    deaths_are_of_items_without_a_result,
    an_item_that_is_wanted_again_is_neither_done_nor_failed_nor_suspect,
    a_snapshot_stands_still,
    places_are_named,
    what_was_deleted_gives_its_space_back,
    groups_of_any_size_are_kept_whole,
    answers_are_kept_beside_records,
    answers_go_by_age_and_by_number,
)
