"""TASKS: what is measured on a GPU machine, each by one name, as the commands it takes.

Every step writes under the results folder it is given, and can be called again: a run or study that is there is gone
on with, a file that is there is not made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SERVETUNE = ("-m", "servetune")
VERIFICATIONS = 5


@dataclass(frozen=True)
class Step:
    """One command of our Python; `{results}` in it is the results folder.

    folder   of a run or study: with `--resume` where it is there already
    makes    a file: nothing is done where it is there already;  needs  one without which nothing can be
    good     exit statuses that count as done
    least_s  with less time left it is not begun
    """

    argv: tuple[str, ...]
    folder: str | None = None
    makes: str | None = None
    needs: str | None = None
    good: tuple[int, ...] = (0,)
    least_s: float = 20.0

    def command(self, results: Path) -> list[str]:
        found = [part.replace("{results}", str(results)) for part in self.argv]
        if self.folder is not None:
            found += ["--out", str(results / self.folder)]
            found += ["--resume"] if (results / self.folder).exists() else []
        return found

    def done(self, results: Path) -> bool:
        return self.makes is not None and (results / self.makes).exists()

    def possible(self, results: Path) -> bool:
        return self.needs is None or (results / self.needs).exists()


@dataclass(frozen=True)
class Task:
    """`about`: the question, for `--help` and the documentation."""

    about: str
    steps: tuple[Step, ...]


def bench(scenario: str) -> Step:
    """`servetune bench`; that no point can be believed is no reason to stop."""
    return Step((*SERVETUNE, "bench", scenario), folder=Path(scenario).stem, good=(0, 1))


def script(name: str, *arguments: str, makes: str | None = None) -> Step:
    return Step((f"tools/gpu/{name}.py", *arguments), makes=makes)


def found(scenario: str) -> tuple[Step, ...]:
    """A search, the spec of its answer, and its verifications on fresh launches."""
    study = Path(scenario).stem
    spec = f"{study}/spec.yaml"
    at = "{results}/"
    search = Step((*SERVETUNE, "search", scenario), folder=study, good=(0, 1))
    export = Step(
        (*SERVETUNE, "spec", at + study, "-o", at + spec),
        makes=spec,
        needs=f"{study}/study.json",
        least_s=5.0,
    )
    verify = [
        Step(
            (*SERVETUNE, "verify", at + spec, "--json", f"{at}{study}/verify-{number}.json"),
            makes=f"{study}/verify-{number}.json", needs=spec, good=(0, 1, 3),
        )
        for number in range(1, VERIFICATIONS + 1)
    ]  # fmt: skip
    return (search, export, *verify)


TASKS: dict[str, Task] = {
    "smoke": Task(
        "does the engine start, answer and show its settings here?",
        (
            Step(
                (*SERVETUNE, "doctor", "--json", "{results}/doctor.json"),
                makes="doctor.json",
                good=(0, 1),
                least_s=5.0,
            ),
            bench("scenarios/h200-smoke.yaml"),
        ),
    ),
    "failures": Task(
        "what does each failure look like, and is it classified as what it is?",
        (script("failures", "--out", "{results}/failures"),),
    ),
    "nvml": Task(
        "does NVML say what nvidia-smi says, while a load runs?",
        (script("nvml_truth", "--out", "{results}/nvml", makes="nvml/comparison.json"),),
    ),
    "grid": Task(
        "the small model's grid, recorded to be replayed",
        (bench("scenarios/h200-grid.yaml"),),
    ),
    "shapes": Task(
        "8B and 7B shapes without weights: performance only",
        (bench("scenarios/h200-shape-8b.yaml"), bench("scenarios/h200-shape-7b.yaml")),
    ),
    "noise": Task(
        "ten fresh launches of one configuration: how far do they spread?",
        (bench("scenarios/h200-noise.yaml"),),
    ),
    "search": Task(
        "a search against the default, its spec, and five verifications of it",
        found("scenarios/h200-search.yaml"),
    ),
    "stretch": Task(
        "the load generator at full stretch, beside `vllm bench serve`",
        (script("stretch", "--out", "{results}/stretch", makes="stretch/stretch.json"),),
    ),
    "back": Task("nothing but bringing back what is left", ()),
}
