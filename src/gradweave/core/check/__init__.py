"""Is the meta-gradient of a learner to be trusted?"""

from gradweave.core.check.learner import check_learner
from gradweave.core.check.report import Finding, LeafReport, LearnerReport, ModeReport

__all__ = ["Finding", "LeafReport", "LearnerReport", "ModeReport", "check_learner"]
