# %% [markdown]
# # Tune your first agent
#
# A preset is an environment with a learner whose discount and other hyper-parameters tune themselves. This one is a
# chain whose reward comes late for one action and early for another, so that the discount decides what is learned.

# %%
import gradweave as gw

config = gw.configure(
    "discounting-chain",
    inner={"num_envs": 8, "learning_rate": 3e-3},
    run={"total_steps": 20_000, "seed": 1, "finish": "none"},  # small; leave this line out for a real run
)
run = gw.train(config)

# %% [markdown]
# ## What happened
#
# Everything that was logged is a table of columns; the meta-parameters are in it.

# %%
steps, discounts = run.metrics.series("eta/discount")
print(f"after {int(steps[0]):,} steps the discount is {discounts[0]:.3f}, after {int(steps[-1]):,} {discounts[-1]:.3f}")
assert len(steps) > 10

# %% [markdown]
# ## What it costs, and what it is worth
#
# Tuning itself costs time and, on one seed, shows nothing. Compare with plain learning at equal cost and on several
# seeds before you believe it: `gradweave sweep` does that from the command line. A run lies in a folder; it can be
# read, resumed, played and measured later.

# %%
print(run.path.name)
again = gw.load_run(run.path)
assert again.step == run.step
