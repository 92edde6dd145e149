# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Searching for hyperparameters, and comparing honestly
#     minutes: 3
#     shows: [C4, C5, C6, E7, F2]
# ---

# %% [markdown]
# # Searching for hyperparameters, and comparing honestly
#
# **You will learn** how to vary one setting from far too small to far too large, why random draws search better than a grid, how to train
# a hundred networks in one command, and how to tell a better setting from a lucky one.
#
# **Before:** lessons 7 and 9. **Takes** about three minutes.
#
# **Comes from** Bergstra and Bengio (2012), *Random search for hyper-parameter optimization*; Student (1908), *The probable error of a
# mean*; Bouthillier and others (2021), *Accounting for variance in machine learning benchmarks*.

# %%
import math
import time

import numpy as np
import torch

from firstlight.notebooks.lesson import begin
from firstlight.studies.answer import answer, hparams
from firstlight.studies.pictures import pictures
from firstlight.studies.runner import open_study, run_study
from firstlight.studies.space import Interval
from firstlight.studies.statistics import compare_paired, estimate, t_cdf, t_quantile
from firstlight.tracking.console import Console

lesson = begin("hyperparameter_search")

# %% [markdown]
# ## A study
#
# A **hyperparameter** is a setting that gradient descent does not learn: the learning rate, the number of units, the strength of L2. We
# find it by training with several values, and looking at the validation part. The test set stays sealed: a study of firstlight cannot
# read it.
#
# All studies below vary one small network: 16 hidden units, plain gradient descent on batches of 32, few images. So a training takes less
# than a second. Better still, networks this small are trained **side by side in one program** (as *lanes*): their weights lie in one
# large tensor, and one matrix product serves them all. `firstlight/engine/vectorized.py` does it; each lane ends where it would end
# alone.

# %%
COMMON = [
    f"data={lesson.data}",
    f"split.num_train={lesson.on(mnist=lesson.pick(small=3_000, full=5_000), digits=1_000)}",
    f"split.val_fraction={lesson.pick(small=lesson.on(mnist=0.02, digits=0.1), full=0.1)}",
    "model.hidden=[16]",
    "optim.momentum=0",
    "schedule=constant",
    f"train.epochs={lesson.on(mnist=lesson.pick(small=1, full=3), digits=lesson.pick(small=3, full=8))}",
    "train.batch_size=32",
    "checkpoint.keep_last=1",
    "checkpoint.every=100",
]


def study(name, *settings, grid):
    """Carry out a study below ./runs, or read it where it is done, and return its answer and its folder."""
    plan, store = open_study("mnist_mlp", [*COMMON, *settings], grid=grid, name=f"{name}-{lesson.data}-{lesson.size}", runs_dir="runs")
    run_study(plan, store, Console(quiet=True), lanes="on")
    return answer(plan, store.rows(), num_classes=10), store


# %% [markdown]
# ## One hyperparameter, from too small to too large
#
# The learning rate from 0.001 to 10, in equal **factors**: what counts for a learning rate is how many times larger it is. Each value
# with several seeds, which give other first weights and another order of the images.
#
# **Predict before you run on:** which learning rate is best for plain gradient descent here: 0.001, 0.01, 0.1, 1 or 10?

# %% kind="predict" name="best_lr"
### BEGIN SOLUTION
guess = 0.1
### END SOLUTION

# %%
SEEDS = lesson.pick(small=2, full=5)
sweep, sweep_store = study("lr", f"seeds={SEEDS}", grid=[f"optim.lr=log:1e-3:10:{lesson.pick(small=5, full=9)}"])
lesson.show(pictures(sweep, sweep_store)["response.png"](), "lr")
mean_at = {round(point.point["optim.lr"], 6): 0.0 if point.objective is None else point.objective.mean for point in sweep.points}
for lr, mean in sorted(mean_at.items()):
    print(f"lr {lr:g}: mean validation accuracy {mean:.4f}")
in_tens = {lr: mean_at[lr] for lr in (0.001, 0.01, 0.1, 1.0, 10.0)}
lesson.reveal(guess, max(in_tens, key=in_tens.get), "best learning rate of the five")
best_lr = sweep.best.point["optim.lr"]
lesson.measured("best learning rate", best_lr, least=0.03, most=2)
lesson.measured("mean accuracy at lr 0.001", mean_at[0.001], most=0.6)
lesson.measured("mean accuracy at lr 10", mean_at[10.0], most=0.5)
lesson.measured("mean accuracy at the best", sweep.best.objective.mean, least=lesson.pick(small=0.65, full=0.8))

# %% [markdown]
# Both ends are bad, so the best value lies between: the range was wide enough. See what firstlight says when it is not:

# %%
narrow, _ = study("lr_narrow", grid=["optim.lr=log:1e-4:3e-3:3"])
for warning in narrow.warnings:
    print("warning:", warning)
assert any("lies at an end of its range" in warning for warning in narrow.warnings), "the edge is not warned of"
lesson.measured("best of the narrow range minus best of the wide one", narrow.best.objective.mean - sweep.best.objective.mean, most=-0.05)

# %% [markdown]
# A best value at the edge means: we do not know the best value yet.

# %% [markdown]
# ## Drawing from a range
#
# To search at random we need draws that are even in factors, too: as many between 0.001 and 0.01 as between 0.1 and 1. Such a draw is
# **log-uniform**. Write it: `share` is a number from 0 to 1 (0 gives `low`, 1 gives `high`).


# %% kind="exercise" name="log_uniform"
def log_uniform(share, low, high):
    """Return the value that lies at this share of the way from low to high, in factors."""
    ### BEGIN SOLUTION
    return low * (high / low) ** share
    ### END SOLUTION


# %% kind="check" name="log_uniform" points=1
oracle = Interval(0.001, 10.0, log=True)
for share in (0.0, 0.2, 0.5, 0.9):
    yours, theirs = log_uniform(share, 0.001, 10.0), oracle.at(share)
    assert yours is not None, "log_uniform returns nothing"
    hint = "that is even in the numbers, not in factors" if abs(yours - (0.001 + share * 9.999)) < 1e-9 and share else "low and high?"
    assert math.isclose(yours, theirs, rel_tol=1e-9), f"at {share} you give {yours:.4g}, and it should be {theirs:.4g}: {hint}"
drawn = [log_uniform(share, 0.001, 1.0) for share in np.random.default_rng(0).random(3_000)]
thirds = [sum(low <= value < 10 * low for value in drawn) / len(drawn) for low in (0.001, 0.01, 0.1)]
lesson.measured("share of draws in the least filled power of ten", min(thirds), least=0.3)
lesson.measured("share of draws in the most filled one", max(thirds), most=0.37)

# %% [markdown]
# ## Grid against random
#
# Three hyperparameters: learning rate, L2, dropout. A **grid** takes three values of each: 27 trainings. **Random search** spends its 27
# trainings on 27 independent draws.
#
# **Predict:** how many different learning rates does the grid try?

# %% kind="predict" name="distinct"
### BEGIN SOLUTION
guess = 3
### END SOLUTION

# %%
by_grid, grid_store = study("grid", grid=["optim.lr=log:1e-3:1:3", "optim.weight_decay=log:1e-6:1e-2:3", "model.dropout=0,0.2,0.4"])
by_draws, draws_store = study(
    "random",
    "sampler=random",
    "budget.trials=27",
    grid=["optim.lr=log:1e-3:1", "optim.weight_decay=log:1e-6:1e-2", "model.dropout=lin:0:0.4"],
)
rates = {name: {point.point["optim.lr"] for point in found.points} for name, found in (("grid", by_grid), ("random", by_draws))}
lesson.reveal(guess, len(rates["grid"]), "different learning rates in the grid")
lesson.measured("different learning rates in the grid", len(rates["grid"]), least=3, most=3)
lesson.measured("different learning rates in the random search", len(rates["random"]), least=27, most=27)
lesson.show(pictures(by_grid, grid_store, by_draws)["coverage.png"](), "coverage")

# %% [markdown]
# The marks along the axes are the shadows: which values of one hyperparameter were tried at all. If only one of the three matters, the
# grid has spent 27 trainings on three tries. Nobody knows beforehand which one matters, so random draws are the safer choice.
#
# The table of trials, best first:

# %%
for name, found in (("grid", by_grid), ("random", by_draws)):
    print(name)
    print("  val_acc  val_loss  learning rate       L2  dropout")
    for row in hparams(found)[:5]:
        settings = f"{row['optim.lr']:13.4g} {row['optim.weight_decay']:8.2g} {row['model.dropout']:8.2g}"
        print(f"  {row['val_acc']:7.4f} {row['val_loss']:9.4f}  {settings}")
top = {name: found.best.objective.mean for name, found in (("grid", by_grid), ("random", by_draws))}
lesson.measured("best accuracy of random minus best of the grid", top["random"] - top["grid"], least=-0.02, most=0.2)


def spread_over(found, key):
    """Return how far the mean accuracies of the lower, middle and upper third of one hyperparameter's values lie apart."""
    ordered = sorted((point for point in found.points if point.objective is not None), key=lambda point: point.point[key])
    means = [np.mean([point.objective.mean for point in part]) for part in np.array_split(np.array(ordered, dtype=object), 3)]
    return float(max(means) - min(means))


spreads = {key: spread_over(by_draws, key) for key in ("optim.lr", "optim.weight_decay", "model.dropout")}
print("how far thirds lie apart:", " ".join(f"{key} {spread:.3f}" for key, spread in spreads.items()))
lesson.measured("learning rate: thirds lie apart by", spreads["optim.lr"], least=0.15)
lesson.measured(
    "this over the next largest of the three", spreads["optim.lr"] / sorted(spreads.values())[-2], least=lesson.pick(small=0.8, full=1.2)
)

# %% [markdown]
# Here it is the learning rate that matters. The grid had three tries at it.

# %% [markdown]
# ## A whole map in one command
#
# Learning rate against the scale of the first weights. Ten values of each make a hundred trainings; as lanes that is one program.

# %% varies=true
SIDE = lesson.pick(small=4, full=10)
began = time.perf_counter()
mapped, map_store = study("map", grid=[f"optim.lr=log:1e-3:10:{SIDE}", f"model.init_scale=log:0.01:10:{SIDE}"])
seconds = time.perf_counter() - began
print(f"{len(mapped.rows)} trainings in {seconds:.1f} s, {seconds / len(mapped.rows):.2f} s each")

# %%
lesson.show(pictures(mapped, map_store)["map.png"](), "map")
lesson.measured("trainings on the map", len(mapped.rows), least=SIDE**2, most=SIDE**2)
ends = [point.objective.mean for point in mapped.points if point.objective is not None]
lesson.measured("best accuracy on the map minus the worst", max(ends) - min(ends), least=0.5)

# %% [markdown]
# On a terminal the same is one line, and a killed study goes on where it was when the line is given again:
#
# `firstlight sweep mnist_mlp model.hidden=[16] --grid optim.lr=log:1e-3:10:10 --grid model.init_scale=log:0.01:10:10`

# %% [markdown]
# ## Luck
#
# Now the same setting many times, with nothing changed but the seed.

# %%
NUM_SEEDS = lesson.pick(small=6, full=10)
sizes, sizes_store = study("sizes", f"seeds={NUM_SEEDS}", "optim.lr=0.1", grid=["model.hidden=[16],[17],[64]"])
accuracies = {point.point["model.hidden"][0]: [point.values()[seed] for seed in range(NUM_SEEDS)] for point in sizes.points}
print("16 units, by seed:", " ".join(f"{accuracy:.4f}" for accuracy in accuracies[16]))
luck = max(accuracies[16]) - sum(accuracies[16]) / NUM_SEEDS
lesson.measured("best of these seeds minus their mean", luck, least=0.002)

# %% [markdown]
# **Predict:** 16 units against 17. One unit more can hardly matter much. Someone trains each **once**, with seeds that happen to
# differ, and reports the larger accuracy. In which share of all pairs of seeds does 16 win against 17 (0 to 1; a tie is no win)? A guess
# within a tenth of the truth is good.

# %% kind="predict" name="wins"
### BEGIN SOLUTION
guess = lesson.on(mnist=lesson.pick(small=0.31, full=0.36), digits=lesson.pick(small=0.46, full=0.28))
### END SOLUTION

# %%
wins = sum(one > other for one in accuracies[16] for other in accuracies[17]) / NUM_SEEDS**2
lesson.reveal(guess, wins, "share of pairs in which 16 units win against 17")
lesson.measured("share of pairs in which 16 units win against 17", wins, least=0.05, most=0.75)

# %% [markdown]
# With so little between the two, one run against one run tells nothing. And who tries many settings with one seed each, and keeps the
# best, keeps the luckiest.

# %% [markdown]
# ## How sure is a mean?
#
# The mean of $n$ seeds has an uncertainty of its own: the standard deviation of the figures (with $n - 1$), over $\sqrt n$. Student found
# by how much to multiply it, so that the interval covers the true mean in 95 of 100 such experiments: `t_quantile(0.975, n - 1)`.


# %% kind="exercise" name="interval"
def interval(values):
    """Return mean, standard deviation, and the low and the high end of the 95 % interval of the mean."""
    n = len(values)
    ### BEGIN SOLUTION
    mean = sum(values) / n
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    half = t_quantile(0.975, n - 1) * std / math.sqrt(n)
    return mean, std, mean - half, mean + half
    ### END SOLUTION


# %% kind="check" name="interval" points=2
for values in ([0.9, 0.91, 0.93], accuracies[16], [1.0, 2.0, 3.0, 10.0]):
    yours, theirs = interval(values), estimate(values)
    assert yours is not None, "interval returns nothing"
    assert math.isclose(yours[0], theirs.mean, rel_tol=1e-9), "the mean is wrong"
    assert math.isclose(yours[1], theirs.std, rel_tol=1e-9), "the standard deviation is wrong: divide the sum of squares by n - 1"
    assert math.isclose(yours[2], theirs.low, rel_tol=1e-6), (
        "the ends are wrong: mean -+ t * std / sqrt(n), t with n - 1 degrees of freedom"
    )
    assert math.isclose(yours[3], theirs.high, rel_tol=1e-6), "the high end is wrong"
print("interval agrees with firstlight.studies.statistics.estimate")

# %%
lesson.show(pictures(sizes, sizes_store)["response.png"](), "sizes")
for units, values in accuracies.items():
    print(f"{units} units: {estimate(values)}")

# %% [markdown]
# ## Is it more than noise?
#
# Both settings ran with the **same** seeds. So compare seed by seed: what a lucky seed does to both drops out. Take the differences;
# their interval tells. If 0 lies outside, chance alone would hardly make such a difference. The $p$-value says how seldom: with
# $t = \bar d / (s / \sqrt n)$ it is $2 \cdot$ `t_cdf(-abs(t), n - 1)`.


# %% kind="exercise" name="paired"
def paired(a, b):
    """Return the mean difference (b minus a, seed by seed) and the two-sided p-value of Student's paired test."""
    ### BEGIN SOLUTION
    mean, std, _, _ = interval([after - before for before, after in zip(a, b, strict=True)])
    t = mean / (std / math.sqrt(len(a)))
    return mean, 2 * t_cdf(-abs(t), len(a) - 1)
    ### END SOLUTION


# %% kind="check" name="paired" points=2
drawn = np.random.default_rng(0)
for shift in (0.0, 0.5, -2.0):
    a = drawn.normal(size=8)
    b = a + shift + 0.3 * drawn.normal(size=8)
    yours, theirs = paired(a.tolist(), b.tolist()), compare_paired(a.tolist(), b.tolist())
    assert yours is not None, "paired returns nothing"
    assert math.isclose(yours[0], theirs.difference.mean, abs_tol=1e-9), "the difference is b minus a, averaged over the seeds"
    assert math.isclose(yours[1], theirs.p, rel_tol=1e-6, abs_tol=1e-12), "p is wrong: the spread is that of the differences, not of a or b"
print("paired agrees with firstlight.studies.statistics.compare_paired")

# %%
small_step, large_step = compare_paired(accuracies[16], accuracies[17]), compare_paired(accuracies[16], accuracies[64])
print(small_step.sentence("16 units", "17 units"))
print(large_step.sentence("16 units", "64 units"))
lesson.measured("16 against 64 units: difference", large_step.difference.mean, least=0.002)
lesson.measured("16 against 64 units: p", large_step.p, most=0.05)
lesson.measured(
    "16 against 17 units: absolute difference over that", abs(small_step.difference.mean) / large_step.difference.mean, most=0.8
)

# %% [markdown] kind="answer" name="many" points=2
# Twenty settings that are all equally good, five seeds each. Someone compares each with the baseline and finds one with $p = 0.03$:
# "better, with 97 % certainty". What is wrong, and what should be done?
#
# ### BEGIN SOLUTION
# A p below 0.05 comes up in one of twenty comparisons by chance alone, so among twenty one was to be expected. Correct for the number of
# comparisons (Holm's correction, as firstlight does), or run that setting and the baseline again with new seeds, and judge by the new ones.
# ### END SOLUTION

# %%
p_values = torch.rand(10_000, 20, generator=torch.Generator().manual_seed(0))  # of settings that are all equal, p is uniform
lesson.measured(
    "share of such studies with a p below 0.05 somewhere", (p_values.min(1).values < 0.05).double().mean(), least=0.6, most=0.68
)

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight sweep mnist_hidden_size`, `mnist_lr_init`, `mnist_900_grid` and `mnist_900_random` are the studies of this lesson at full
# size; their files lie in `firstlight/configs/studies`. `firstlight/studies/statistics.py` has the intervals and Holm's correction;
# `firstlight/studies/cautions.py` the warnings. `firstlight study NAME --compare A B` answers as the last cells do;
# `firstlight report NAME` puts it all on one page.
