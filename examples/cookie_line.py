"""A cookie line: one machine sprinkles sugar on each cookie that comes along the belt.

Shows `BatchNode`, the smallest batch there is: `prep` returns the items, `exec` takes one of them, `post`
receives all results.

    python examples/cookie_line.py
"""

from __future__ import annotations

from typing import Any

from asyncflow import BatchNode, Flow


class SprinkleSugar(BatchNode):
    def prep(self, shared: dict[str, Any]) -> list[str]:
        return shared["dough"]

    def exec(self, cookie: str) -> str:
        return f"{cookie} with sugar"

    def post(self, shared: dict[str, Any], prep_res: list[str], cookies: list[str]) -> None:
        shared["cookies"] = cookies


def main(count: int = 6) -> list[str]:
    shapes = ("star", "heart", "moon")
    shared = {"dough": [f"{shapes[n % 3]} cookie {n + 1}" for n in range(count)]}
    Flow(start=SprinkleSugar()).run(shared)
    for cookie in shared["cookies"]:
        print(cookie)
    return shared["cookies"]


if __name__ == "__main__":
    main()
