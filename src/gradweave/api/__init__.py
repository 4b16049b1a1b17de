"""The commands as Python functions: train, go on, read back, play, measure.

JAX is imported where it is needed, after everything that can be refused has been refused.
"""

from gradweave.api.measuring import measure
from gradweave.api.run import Run, load_run
from gradweave.api.training import resume, train

__all__ = ["Run", "load_run", "measure", "resume", "train"]
