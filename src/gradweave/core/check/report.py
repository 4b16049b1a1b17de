"""The report of `check_learner`, as data and as a table."""

from dataclasses import dataclass

from gradweave.core.check.places import Place

__all__ = ["Finding", "LeafReport", "LearnerReport", "ModeReport"]


@dataclass(frozen=True)
class LeafReport:
    """One learned leaf of the meta-parameters.

    Attributes:
        name: its path in `raw`, such as "['lr']".
        derivative: of the outer loss along the leaf (for an array: along a random direction of it).
        difference: the central difference along the same direction, with the outer loss's stopped values held constant.
        is_read: whether `update` computes the new state from it.
        agrees: whether derivative and difference are the same up to the tolerance.
        value: of the meta-parameter, in its natural range (of an array, the mean).
        verdict: one word: "good", "never read", "stopped", "zero", "not finite" or "disagrees".
    """

    name: str
    derivative: float
    difference: float
    is_read: bool
    agrees: bool
    value: float
    verdict: str


@dataclass(frozen=True)
class ModeReport:
    """One way to differentiate.

    Attributes:
        name: as it is written, `ReverseMode()` for instance.
        reason: the obstacle; "" if it applies.
        arithmetic: operations relative to the updates alone, counted in the traced program.
        memory: bytes kept for a window beside its batches, estimated.
    """

    name: str
    reason: str
    arithmetic: float
    memory: float

    @property
    def applies(self) -> bool:
        """Whether this learner can be differentiated so."""
        return not self.reason


@dataclass(frozen=True)
class Finding:
    """One thing that breaks a meta-gradient, or may.

    Attributes:
        severity: "error" (it does), "warning" (it will, on other data) or "note".
        what: one sentence.
        remedy: one sentence.
        place: the source line, where there is one.
    """

    severity: str
    what: str
    remedy: str
    place: Place | None = None

    def __str__(self) -> str:
        where = "" if self.place is None else f" at {self.place}"
        return f"{self.severity:<8}{self.what}{where}\n        -> {self.remedy}"


@dataclass(frozen=True)
class LearnerReport:
    """The report of `check_learner`; `print` it.

    Attributes:
        leaves: one for each learned leaf.
        modes: one for each mode.
        findings: errors first.
        outer_loss: at the end of the checked window.
        num_inner_steps: the number of checked updates.
        precision: the dtype of the differences, "float64" unless the learner does not run in it.
        seconds: time of the check.
    """

    leaves: tuple[LeafReport, ...]
    modes: tuple[ModeReport, ...]
    findings: tuple[Finding, ...]
    outer_loss: float
    num_inner_steps: int
    precision: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no error was found; a learned leaf whose gradient is exactly 0 is one."""
        return not any(finding.severity == "error" for finding in self.findings)

    def __str__(self) -> str:
        bad = ", ".join(f"{leaf.name} ({leaf.verdict})" for leaf in self.leaves if leaf.verdict != "good")
        head = "can be trusted" if self.ok else f"CANNOT BE TRUSTED, for {bad}" if bad else "CANNOT BE TRUSTED"
        lines = [
            f"{head}: the meta-gradient through {self.num_inner_steps} updates, outer loss {self.outer_loss:.4g} "
            f"({self.precision}, {self.seconds:.1f} s)",
            "",
            f"{'meta-parameter':<22}{'value':>11}{'derivative':>13}{'difference':>13}  verdict",
            *(
                f"{leaf.name:<22}{leaf.value:>11.4g}{leaf.derivative + 0.0:>13.4g}{leaf.difference + 0.0:>13.4g}  "
                f"{leaf.verdict}"
                for leaf in self.leaves
            ),
            "",
            f"{'mode':<22}{'arithmetic':>13}{'memory':>13}",
            *(self._mode_row(mode) for mode in self.modes),
        ]
        return "\n".join([*lines, *(["", *map(str, self.findings)] if self.findings else [])])

    @staticmethod
    def _mode_row(mode: ModeReport) -> str:
        if not mode.applies:
            return f"{mode.name:<22}{'no: ' + mode.reason}"
        size, unit = (mode.memory / 2**20, "MB") if mode.memory >= 2**20 else (mode.memory / 2**10, "kB")
        return f"{mode.name:<22}{mode.arithmetic:>12.1f}x{size:>10.1f} {unit}"
