"""Progress reports: a bar and a live table on a terminal, plain lines elsewhere."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from cnn_jax.study.execution import Event
from cnn_jax.study.plan import Run
from cnn_jax.study.results import held_out
from cnn_jax.training.loop import Report

COLUMNS = (
    ("running_train_error", "training (running)"),
    ("clean_train_error", "training (clean)"),
    ("test_error", "test"),
)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def describe(row: dict[str, Any], config: Mapping[str, Any]) -> str:
    """Format a log row of a run of the config, with errors in percent."""
    names = {**dict(COLUMNS), "test_error": held_out(config)}
    parts = [f"{n} {100 * row[key]:.2f} %" for key, n in names.items() if key in row]
    return "error: " + ", ".join(parts)


@contextlib.contextmanager
def single_run(config: Mapping[str, Any]) -> Iterator[Report]:
    """A reporter for one run of a config."""
    steps = config["steps"]
    with _bar(Console()) as bar:
        live = not bar.disable
        task = bar.add_task("training", total=steps)

        def report(step: int, row: dict[str, Any] | None) -> None:
            bar.update(task, completed=step)
            if row is not None and (not live or "test_error" in row):
                line = f"step {step:,} of {steps:,}  {describe(row, config)}"
                bar.console.print(line) if live else print(line, flush=True)

        yield report


@contextlib.contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """A reporter for ``total`` tasks, called with the name of each finished task.

    Args:
      what: one word for the tasks.
      total: number of tasks.
    """
    started, done = time.monotonic(), itertools.count(1)
    with _bar(Console()) as bar:
        live = not bar.disable
        task = bar.add_task(what, total=total)

        def report(name: str) -> None:
            bar.update(task, advance=1, description=f"{what}: {name}")
            if not live:
                place = f"[{next(done):>{len(str(total))}}/{total}]"
                elapsed = time.monotonic() - started
                print(f"{place} {name} after {elapsed:.0f} s", flush=True)

        yield report


class StudyProgress:
    """The live table and bar of a study, or a line for each run that ends.

    Args:
      runs: all runs of the study.
    """

    def __init__(self, runs: Sequence[Run]):
        self.runs = list(runs)
        self.events: dict[Run, Event] = {}
        self.console = Console()
        self.started = time.monotonic()
        self._bar = _bar(self.console)
        total = sum(run.config["steps"] for run in runs)
        self._task = self._bar.add_task("steps", total=total)
        self._live: Live | None = None

    def __enter__(self) -> "StudyProgress":
        if self.console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self.console, refresh_per_second=4
            )
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def __call__(self, event: Event) -> None:
        """Record and show an event of the study."""
        known = self.events.get(event.run)
        if event.row is None and known is not None and event.status == "running":
            event = Event(event.run, event.step, known.row, event.status)
        self.events[event.run] = event
        if self._live is None:
            if event.status != "running":
                self._print(event)
        else:
            done = sum(e.step for e in self.events.values())
            self._bar.update(self._task, completed=done)

    def _print(self, event: Event) -> None:
        ended = sum(e.status != "running" for e in self.events.values())
        words = describe(event.row, event.run.config) if event.row else event.message
        elapsed = time.monotonic() - self.started
        print(
            f"[{ended:>{len(str(len(self.runs)))}}/{len(self.runs)}] "
            f"{event.run.name} {event.status} after {elapsed:.0f} s  {words}",
            flush=True,
        )

    def _render(self) -> Group:
        last = held_out(self.runs[0].config)
        table = Table(title=f"clean training error / {last} error (%) by seed")
        families = list(dict.fromkeys(run.family for run in self.runs))
        table.add_column("depth", justify="right")
        for family in families:
            table.add_column(family)
        for depth in dict.fromkeys(run.depth for run in self.runs):
            cells = [
                "  ".join(
                    self._cell(run)
                    for run in self.runs
                    if run.depth == depth and run.family == family
                )
                for family in families
            ]
            table.add_row(str(depth), *cells)
        return Group(table, self._bar)

    def _cell(self, run: Run) -> str:
        event = self.events.get(run)
        if event is None:
            return "·"
        if event.status in ("failed", "diverged"):
            return event.status
        if event.row is None or "test_error" not in event.row:
            return f"{100 * event.step // run.config['steps']}%"
        train = 100 * event.row["clean_train_error"]
        test = 100 * event.row["test_error"]
        return f"{train:.1f}/{test:.1f}"
