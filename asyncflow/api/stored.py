"""Stored runs, as every door asks for them. What keeps them is loaded only where a `store` is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncflow.engine.journal import Changed, Journal, RetryFailed
from asyncflow.graph.base import BaseNode, label
from asyncflow.graph.flow import Flow
from asyncflow.graph.outline import outline, parts

if TYPE_CHECKING:
    from asyncflow.durability.resume import Fingerprint


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a door records results, and how it goes on with what is recorded there.

    Attributes:
        store: A store, or what names one; None: nothing is recorded.
        run_id: The run to begin or to resume; None: a new one.
        changed: What to do where the program is no longer what the run was recorded with.
        retry_failed: Whether items that failed run again.
    """

    store: Any
    run_id: str | None
    changed: Changed
    retry_failed: RetryFailed

    def of_function(
        self,
        func: Callable[..., Any],
        name: str,
        version: str | Mapping[str, str] | None,
        total: int | None,
    ) -> AbstractAsyncContextManager[Journal] | None:
        """What opens the journal of a function's run, where a store is given."""
        if self.store is None:
            return None
        from asyncflow.durability.resume import Fingerprint, facts_of

        facts = dict(version) if isinstance(version, Mapping) else facts_of([func], version=version)
        return self._open(name, Fingerprint({name: facts}), total)

    def of_flow(self, flow: BaseNode) -> AbstractAsyncContextManager[Journal] | None:
        """What opens the journal of a flow's run, where a store is given."""
        if self.store is None:
            return None
        from asyncflow.durability.resume import Fingerprint, facts_of, of_outline

        facts = {
            path: facts_of(part.execs, version=part.version, params=part.params)
            for path, part in parts(flow).items()
        }
        whole = of_outline(outline(flow), facts) if isinstance(flow, Flow) else Fingerprint(facts)
        return self._open(label(flow), whole, None)

    def _open(
        self, name: str, fingerprint: Fingerprint, total: int | None
    ) -> AbstractAsyncContextManager[Journal]:
        from asyncflow.durability.opening import open_journal

        return open_journal(
            self.store,
            self.run_id,
            name=name,
            fingerprint=fingerprint,
            changed=self.changed,
            retry_failed=self.retry_failed,
            total=total,
        )

    def how_to_resume(self, run_id: str) -> str:
        """What to tell people of a run that was stopped."""
        from asyncflow.durability.saying import how_to_resume

        return how_to_resume(run_id, self.store, given=self.run_id is not None)
