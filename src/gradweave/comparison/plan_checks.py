"""Checks of a comparison's plan; nothing here imports JAX."""

from gradweave.comparison.rivals import SWEEP_SEED, SWEEP_SEEDS, Rival, parse_rivals
from gradweave.config.auto import with_auto
from gradweave.config.learners import LEARNERS
from gradweave.config.schema import Config
from gradweave.config.validation import validate
from gradweave.errors import ConfigError
from gradweave.runs.comparison_folder import ComparisonPlan

__all__ = ["check_plan", "config_of"]

_MOST = 100_000


def check_plan(plan: ComparisonPlan) -> None:
    """Refuse a plan of unknown rivals, of numbers out of range, or with a trial that would get less than one window.

    Raises:
        ConfigError: with the flag, the accepted values and a remedy.
    """
    for flag, number, least in (("--trials", plan.trials, 2), ("--at-once", plan.at_once, 1)):
        if not least <= number <= _MOST:
            raise ConfigError(flag, number, f"at least {least}, and at most {_MOST:,}", f"{flag} {max(least, 8)}, say")
    run = plan.config.run
    if run.devices != 1:
        raise ConfigError("run.devices", run.devices, "1: members learn side by side on one device", "leave it out")
    if run.track != "none":
        raise ConfigError("run.track", run.track, "none: rivals are no runs of their own", "leave it out")
    if run.on_nonfinite != "stop":
        accepted = "stop: a member that is not finite any more is not chosen, and the others go on"
        raise ConfigError("run.on_nonfinite", run.on_nonfinite, accepted, "leave it out")
    chosen_on = {*plan.seeds} & {*range(SWEEP_SEED, SWEEP_SEED + SWEEP_SEEDS)}
    if chosen_on and any(rival.searches and not rival.shares for rival in parse_rivals(plan.rivals, plan.config)):
        accepted = "seeds on which the sweep does not choose its setting"
        raise ConfigError("run.seed", min(chosen_on), accepted, f"--seed {SWEEP_SEED + SWEEP_SEEDS}, say")
    for rival in parse_rivals(plan.rivals, plan.config):
        if rival.tunes == "auto" and not LEARNERS[plan.config.learner].auto:
            accepted = f"rivals other than auto: the learner {plan.config.learner} has none"
            raise ConfigError("--rivals", "auto", accepted, "leave auto out")
        config = config_of(rival, plan.config)
        validate(config)
        share = plan.trials if rival.searches and rival.shares else 1
        least = share * (config.inner.num_envs * config.inner.num_steps + config.window_steps)
        if config.run.total_steps < least:
            what = (
                f"one window for each of the {share} trials of {rival.name}" if share > 1 else "a rollout and a window"
            )
            remedy = "lower --trials, or give more steps" if share > 1 else f"--total-steps {least}"
            accepted = f"at least {least:,} environment steps, {what}"
            raise ConfigError("run.total_steps", config.run.total_steps, accepted, remedy)


def config_of(rival: Rival, config: Config) -> Config:
    """A rival's configuration, from the one that is compared."""
    if rival.tunes == "given":
        return config
    return with_auto(config) if rival.tunes == "auto" else config.untuned()
