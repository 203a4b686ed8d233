"""Cookie factories: one recipe, given to a factory for each flavour.

Shows `BatchFlow`: the flow inside it (mix → bake → pack) runs once for each set of parameters that `prep`
returns, and its nodes read them from `self.params`.

    python examples/cookie_factories.py
"""

from __future__ import annotations

from typing import Any

from asyncflow import BatchFlow, Flow, Node


class Mix(Node):
    def post(self, shared: dict[str, Any], prep_res: None, exec_res: None) -> None:
        shared["dough"] = [f"{self.params['flavour']} dough"] * self.params["count"]


class Bake(Node):
    def prep(self, shared: dict[str, Any]) -> list[str]:
        return shared["dough"]

    def exec(self, dough: list[str]) -> list[str]:
        return [piece.replace("dough", "cookie") for piece in dough]

    def post(self, shared: dict[str, Any], dough: list[str], cookies: list[str]) -> None:
        shared["cookies"] = cookies


class Pack(Node):
    def post(self, shared: dict[str, Any], prep_res: None, exec_res: None) -> None:
        shared["boxes"][self.params["flavour"]] = shared["cookies"]


def recipe() -> Flow:
    mix = Mix()
    mix >> Bake() >> Pack()
    return Flow(start=mix)


class Factories(BatchFlow):
    def prep(self, shared: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"flavour": flavour, "count": count} for flavour, count in shared["orders"].items()]

    def post(self, shared: dict[str, Any], runs: list[dict[str, Any]], exec_res: None) -> None:
        print(f"{len(runs)} factories have delivered:")
        for flavour, cookies in shared["boxes"].items():
            print(f"  {flavour}: {len(cookies)} × {cookies[0]}")


def main(chocolate: int = 100, vanilla: int = 100) -> dict[str, list[str]]:
    shared: dict[str, Any] = {"orders": {"chocolate": chocolate, "vanilla": vanilla}, "boxes": {}}
    Factories(start=recipe()).run(shared)
    return shared["boxes"]


if __name__ == "__main__":
    main()
