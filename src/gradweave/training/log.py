"""Reports of training chunks: rows of metrics.jsonl, the tracker and the table."""

import collections
import concurrent.futures
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradweave.agents import MetaStepMetrics, SelfTuning
from gradweave.agents.state import named_numbers
from gradweave.config.schema import Config
from gradweave.runs.progress import Progress
from gradweave.runs.run_folder import RunFolder
from gradweave.runs.trackers import Tracker
from gradweave.training.follower import NoFolder

__all__ = ["EvaluationRow", "Log", "meta_step_row"]

_SECONDS_BETWEEN_ROWS = 4.0  # shown, not logged: every logged row is in metrics.jsonl

EvaluationRow = concurrent.futures.Future[dict[str, float]]
"""The part of a row that an evaluation is working out."""


class Log:
    """Turns a chunk's metrics into rows of metrics.jsonl, the tracker and, now and then, the table.

    The row of a running evaluation, and the rows after it, are held back until it has ended. A context manager: when
    it is left nothing is held any more.
    """

    def __init__(
        self,
        agent: SelfTuning,
        config: Config,
        folder: RunFolder | NoFolder,
        progress: Progress,
        tracker: Tracker,
        *,
        done: int,
    ) -> None:
        self._agent = agent
        self._config = config
        self.folder = folder
        self._progress = progress
        self._tracker = tracker
        self._done = done
        self._unlogged = np.zeros(3)  # episodes, returns, lengths since the last row
        self._happened: dict[str, int] = {}  # since the last row
        self._unshown = np.zeros(3)
        self._shown_at = time.monotonic()
        self._shown_step = agent.environment_steps(done)
        # Evaluations with the actions on their results; None: there is nothing to wait for.
        self._held: collections.deque[tuple[EvaluationRow | None, Callable[[dict[str, float]], object]]]
        self._held = collections.deque()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self.complete()

    def chunk(self, metrics: MetaStepMetrics, evaluation: EvaluationRow | None) -> None:
        """Log the meta-steps of one chunk; `evaluation` belongs to its end."""
        row: dict[str, Any] = {}
        for index in range(self._config.run.chunk_size):
            one = jax.tree.map(lambda leaf, index=index: leaf[index], metrics)
            self._unlogged += np.array([float(total) for total in one.episodes])
            self._happened = _with(self._happened, _events(one))
            self._done += 1
            last = index == self._config.run.chunk_size - 1
            if self._done % self._config.run.log_every and not last:
                continue
            step = self._agent.environment_steps(self._done)
            row = meta_step_row(step, self._done, self._unlogged, one, self._config.meta.learned)
            row |= self._happened
            self._happened = {}
            self._held.append((evaluation if last else None, functools.partial(self._write_row, row)))
            self._unshown += self._unlogged
            self._unlogged[:] = 0
        self._go_on(wait=False)
        self._show(row)

    @property
    def holds(self) -> bool:
        """Whether rows are held back."""
        return bool(self._held)

    def afterwards(self, act: Callable[[], object]) -> None:
        """Do something once all rows so far have been written: a checkpoint, from which no row is made again."""
        self._held.append((None, lambda _: act()))
        self._go_on(wait=False)

    def complete(self) -> None:
        """Do all that is held back, waiting for evaluations.

        Raises:
            Exception: of an evaluation; its row has been written.
        """
        self._go_on(wait=True)

    def _go_on(self, *, wait: bool) -> None:
        while self._held:
            evaluation, act = self._held[0]
            if evaluation is not None and not evaluation.done() and not wait:
                return
            self._held.popleft()
            found: dict[str, float] = {}
            try:
                if evaluation is not None:
                    found = evaluation.result()
            finally:
                act(found)

    def _write_row(self, row: dict[str, Any], found: dict[str, float]) -> None:
        row = row | found
        self.folder.metrics.write(row)
        self._tracker.log(row)

    def _show(self, row: dict[str, Any]) -> None:
        elapsed = time.monotonic() - self._shown_at
        if elapsed < _SECONDS_BETWEEN_ROWS and self._done < self._config.num_meta_steps:
            return
        rate = (row["step"] - self._shown_step) / elapsed
        self._progress.update({**row, **_episode_row(self._unshown), "steps_per_second": rate})
        self._unshown[:] = 0
        self._shown_at, self._shown_step = time.monotonic(), row["step"]


def meta_step_row(
    step: int, meta_step: int, episodes: Any, metrics: MetaStepMetrics, learned: Sequence[str]
) -> dict[str, Any]:
    """One row of metrics.

    Args:
        step: environment steps done.
        meta_step: meta-steps done.
        episodes: totals of the episodes that ended since the last row.
        metrics: of one meta-step.
        learned: names of the learned meta-parameters; of one that is learned by parts, its own or those of its parts.
    """
    row = {"step": step, "meta_step": meta_step, **_episode_row(episodes), **_quantities(metrics, learned)}
    if metrics.kept is not None:
        row["kept_move"] = float(metrics.kept)
    return row | _events(metrics)


def _events(metrics: MetaStepMetrics) -> dict[str, int]:
    """Events of this window, which the next row written reports even if it is of a later window: `skipped` is the
    number of windows.
    """
    restored: dict[str, int] = {} if metrics.restored is None or not metrics.restored else {"restored": True}
    return restored if metrics.finite else {**restored, "skipped": 1}


def _with(before: dict[str, int], events: dict[str, int]) -> dict[str, int]:
    """Events of several windows."""
    count = before.get("skipped", 0) + events.get("skipped", 0)
    return {**before, **events, **({"skipped": count} if count else {})}


def _episode_row(totals: Any) -> dict[str, Any]:
    count, returns, lengths = totals
    return {
        "num_episodes": int(count),
        "return": returns / count if count else None,
        "episode_length": lengths / count if count else None,
    }


def _quantities(metrics: MetaStepMetrics, learned: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {f"eta/{name}": value for name, value in named_numbers(metrics.eta).items()}
    for kind, tree in (("raw", metrics.raw), ("meta_gradient", metrics.grad)):
        row |= {
            f"{kind}/{name}": value
            for name, value in named_numbers(tree).items()
            if name in learned or name.partition("/")[0] in learned
        }
    if learned:
        row["outer_loss"] = metrics.outer_loss
    return {**row, **metrics.inner, **metrics.outer}
