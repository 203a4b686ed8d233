"""School grades: averages per student, per class and of the school, by a batch flow inside a batch flow.

Shows nested parameters. The outer flow runs once for each class, the inner one once for each student, and the
nodes at the bottom see both: `self.params == {"class": …, "student": …}`.

    python examples/school_grades.py [folder]     (by default a school of three classes, invented)

A school is a folder of class folders with one file per student, one grade per line.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from asyncflow import BatchFlow, Flow, Node


class LoadGrades(Node):
    def prep(self, shared: dict[str, Any]) -> Path:
        return shared["school"] / self.params["class"] / f"{self.params['student']}.txt"

    def exec(self, path: Path) -> list[float]:
        return [float(line) for line in path.read_text(encoding="utf-8").split()]

    def post(self, shared: dict[str, Any], prep_res: Path, grades: list[float]) -> None:
        shared["grades"] = grades


class AverageGrades(Node):
    def prep(self, shared: dict[str, Any]) -> list[float]:
        return shared["grades"]

    def exec(self, grades: list[float]) -> float:
        return fmean(grades)

    def post(self, shared: dict[str, Any], grades: list[float], average: float) -> None:
        shared["students"].setdefault(self.params["class"], {})[self.params["student"]] = average


class OneClass(BatchFlow):
    """Each student of the class that the flow around it names."""

    def prep(self, shared: dict[str, Any]) -> list[dict[str, str]]:
        folder = shared["school"] / self.params["class"]
        return [{"student": path.stem} for path in sorted(folder.glob("*.txt"))]

    def post(self, shared: dict[str, Any], runs: list[dict[str, str]], exec_res: None) -> None:
        name = self.params["class"]
        students = shared["students"][name]
        shared["classes"][name] = fmean(students.values())
        print(f"{name}: {shared['classes'][name]:.2f}")
        for student, average in students.items():
            print(f"  {student}: {average:.2f}")


class School(BatchFlow):
    """Each class of the school."""

    def prep(self, shared: dict[str, Any]) -> list[dict[str, str]]:
        return [{"class": path.name} for path in sorted(shared["school"].iterdir()) if path.is_dir()]

    def post(self, shared: dict[str, Any], runs: list[dict[str, str]], exec_res: None) -> None:
        everyone = [grade for students in shared["students"].values() for grade in students.values()]
        shared["average"] = fmean(everyone)
        print(f"the school: {shared['average']:.2f}, {len(everyone)} students in {len(runs)} classes")


def school_flow() -> School:
    load = LoadGrades()
    load >> AverageGrades()
    return School(start=OneClass(start=Flow(start=load)))


def make_school(folder: Path, classes: int, students: int, *, seed: int = 0) -> None:
    """Write a school of invented grades from 1 to 10; the n-th class has n students fewer."""
    rng = random.Random(seed)
    for number in range(classes):
        place = folder / f"class_{chr(ord('a') + number)}"
        place.mkdir(parents=True)
        for student in range(1, students - number + 1):
            grades = "\n".join(f"{rng.uniform(1, 10):.1f}" for _ in range(rng.randint(3, 6)))
            (place / f"student_{student:02d}.txt").write_text(grades + "\n", encoding="utf-8")


def main(school: Path | None = None, classes: int = 3, students: int = 4) -> dict[str, Any]:
    if school is None:
        with tempfile.TemporaryDirectory() as folder:
            make_school(Path(folder), classes, students)
            return main(Path(folder))
    shared: dict[str, Any] = {"school": Path(school), "students": {}, "classes": {}}
    school_flow().run(shared)
    return shared


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
