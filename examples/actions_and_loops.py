"""A cash machine: the action that `post` returns decides where the flow goes, back into a loop too.

Shows conditional actions ("right", "again", "keep"), a loop with an end of its own (three tries), and
`max_steps`, which ends a loop that has none.

    python examples/actions_and_loops.py [PIN ...]        (1234 is right)
"""

from __future__ import annotations

import sys
from typing import Any

from asyncflow import Flow, Node, check
from asyncflow.errors import StepLimitError


class AskPIN(Node):
    """Takes the next PIN typed; the last one again where there is no more."""

    def post(self, shared: dict[str, Any], prep_res: None, exec_res: None) -> None:
        shared["tries"] = shared.get("tries", 0) + 1
        shared["pin"] = shared["typed"][min(shared["tries"], len(shared["typed"])) - 1]


class CheckPIN(Node):
    def prep(self, shared: dict[str, Any]) -> str:
        return shared["pin"]

    def exec(self, pin: str) -> bool:
        return pin == "1234"

    def post(self, shared: dict[str, Any], pin: str, right: bool) -> str:
        print(f"  {pin}: {'right' if right else 'wrong'}")
        if right:
            return "right"
        return "again" if shared["tries"] < shared["allowed"] else "keep"


class PayOut(Node):
    def post(self, shared: dict[str, Any], prep_res: None, exec_res: None) -> str:
        shared["said"] = "here is your money"
        return "paid"


class KeepCard(Node):
    def post(self, shared: dict[str, Any], prep_res: None, exec_res: None) -> str:
        shared["said"] = "your card stays here"
        return "kept"


def cash_machine(max_steps: int | None = None) -> Flow:
    ask, look = AskPIN(), CheckPIN()
    ask >> look
    look - "right" >> PayOut()
    look - "again" >> ask
    look - "keep" >> KeepCard()
    return Flow(start=ask, max_steps=max_steps)


def main(*typed: str, allowed: float = 3, max_steps: int | None = None) -> str:
    """Returns the flow's last action, or "endless"."""
    flow = cash_machine(max_steps)
    for problem in check(flow):  # unreachable nodes, unhandled actions: none here
        print(problem)
    shared: dict[str, Any] = {"typed": typed or ("1111", "2222", "1234"), "allowed": allowed}
    try:
        action = flow.run(shared)
    except StepLimitError as exc:
        print(f"stopped: {exc}")
        return "endless"
    print(f"after {shared['tries']} tries: {shared['said']}")
    return action


if __name__ == "__main__":
    main(*sys.argv[1:])
    print("a machine that allows any number of tries, with max_steps=8:")
    main("0000", allowed=float("inf"), max_steps=8)
    print(cash_machine().to_mermaid())
