"""V-trace actor-critic: its update, and how it is built from a configuration."""

from gradweave.agents.vtrace.learner import VTraceEta, VTraceOptions, vtrace_agent

__all__ = ["VTraceEta", "VTraceOptions", "vtrace_agent"]
