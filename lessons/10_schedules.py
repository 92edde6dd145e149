# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Learning-rate schedules, fast first and careful later
#     minutes: 1
#     shows: [B6]
# ---

# %% [markdown]
# # Learning-rate schedules, fast first and careful later
#
# **You will learn** why no single learning rate is right for a whole training, and four ways to change it on the way: in steps, along a
# cosine behind a warm-up, and by what validation says. You will write them, read from a run which learning rate each step really used,
# and see what each does to the loss.
#
# **Before:** lesson 9 (optimizers). **Takes** about a minute.
#
# **Comes from** Robbins and Monro (1951), *A stochastic approximation method* (steps must shrink); Goyal et al. (2017), *Accurate, large
# minibatch SGD* (warm-up); Loshchilov and Hutter (2017), *SGDR: stochastic gradient descent with warm restarts* (cosine).

# %%
import math

import torch
from torch import nn

import firstlight as fl
from firstlight.notebooks.lesson import begin
from firstlight.optim.schedules import Cosine, Plateau
from firstlight.plotting.curves import plot_steps, smooth
from firstlight.plotting.style import color_of, new_figure, tidy
from firstlight.tracking.console import Console

lesson = begin("schedules")

# %% [markdown]
# ## Noise sets a floor
#
# A gradient of a mini-batch is the true gradient plus noise, because each batch has other images. The smallest model of that: the loss
# $f(x) = x^2 / 2$, whose gradient is $x$, plus a random number of deviation 1. We start at $x = 10$ and take steps
# $x \leftarrow x - \mathrm{lr}\,(x + \text{noise})$.
#
# Far from the minimum, the gradient wins: each step takes away the share lr of the distance. Near it, the noise wins: $x$ is knocked
# about for ever. How far? In balance, one step leaves the mean of $x^2$ as it is: $v = (1-\mathrm{lr})^2\,v + \mathrm{lr}^2$, and so
#
# $$v = \frac{\mathrm{lr}}{2 - \mathrm{lr}}$$
#
# **Predict:** how many times larger is that $v$ at lr = 0.2 than at lr = 0.02?

# %% kind="predict" name="floor"
### BEGIN SOLUTION
guess = (0.2 / 1.8) / (0.02 / 1.98)
### END SOLUTION

# %%
NUM_STEPS, NUM_WALKERS = 600, 2_000


def walk(lrs, seed=0):
    """Return the mean of x^2 over many walkers after each step, [NUM_STEPS + 1]; lrs: the learning rate of each step."""
    noise = torch.Generator().manual_seed(seed)
    x = torch.full((NUM_WALKERS,), 10.0)
    squares = [x.square().mean()]
    for lr in lrs:
        x = x - lr * (x + torch.randn(NUM_WALKERS, generator=noise))
        squares.append(x.square().mean())
    return torch.stack(squares)


large, small = walk([0.2] * NUM_STEPS), walk([0.02] * NUM_STEPS)
floors = large[-100:].mean().item(), small[-100:].mean().item()
lesson.reveal(guess, floors[0] / floors[1], "the floor at lr 0.2 over that at 0.02")
lesson.measured("floor at lr 0.2", floors[0], least=0.107, most=0.116)
lesson.measured("floor at lr 0.02", floors[1], least=0.0092, most=0.011)
below = [int((squares < 0.2).nonzero()[0]) for squares in (large, small)]
lesson.measured("steps of lr 0.2 until the mean of x^2 is below 0.2", below[0], most=30)
lesson.measured("steps of lr 0.02 until then, over that", below[1] / below[0], least=5)

# %% [markdown]
# A large learning rate is there soon and stays on a high floor. A small one gets ten times lower and needs ten times as long. A network
# has both troubles at once, in each of its directions. So: **begin large, end small**. A *schedule* says how. It is a function of the
# step that returns a **factor**: the learning rate of a step is the base learning rate times the factor.
#
# ## In steps
#
# The oldest schedule: multiply by `gamma` each time that so many epochs are over. Write it. The first step of a training is step 0.


# %% kind="exercise" name="step_factor"
def step_factor(step, steps_per_epoch, every_epochs, gamma):
    """Return the factor at a step (the first is 0): 1, then `gamma` after `every_epochs` epochs, then gamma squared, and so on."""
    ### BEGIN SOLUTION
    return gamma ** (step // (steps_per_epoch * every_epochs))
    ### END SOLUTION


# %% kind="check" name="step_factor" points=1
# The oracle is PyTorch's own StepLR, asked before each step of an optimizer.
def of_torch(make_scheduler, num_steps):
    """Return the learning rate that a scheduler of torch gives to each step, from a base of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, used = make_scheduler(optimizer), []
    for _ in range(num_steps):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return used


expected = of_torch(lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 20, gamma=0.1), 60)
found = [step_factor(step, steps_per_epoch=10, every_epochs=2, gamma=0.1) for step in range(60)]
assert found[0] == 1, f"the first step has the factor {found[0]}, and should have 1"
assert found[10] == 1, "after one epoch the factor has changed already: it falls every `every_epochs` epochs, here 2"
assert found[19] == 1, "step 19 is the last of the second epoch, and still has the factor 1: the first step is number 0"
assert found[20] != 1, "step 20 is the first behind two epochs, and has the factor 1 still"
apart = max(abs(one - other) for one, other in zip(found, expected, strict=True))
assert apart < 1e-9, f"you are {apart:.2g} away from torch's StepLR: each drop multiplies by gamma once more"
lesson.measured("step_factor: farthest from torch's StepLR", apart, most=1e-9)

# %% [markdown]
# ## A cosine behind a warm-up
#
# Steps are sudden, and you must choose where. Half a cosine falls smoothly from 1 to 0 over the whole training, slowly at both ends:
#
# $$\text{factor} = \frac{1 + \cos(\pi\,p)}{2} \qquad p = \text{share of the training that is done}$$
#
# In front of it often stands a **warm-up**: at the very beginning the weights are random, and a long step in the first direction that
# comes along may lead into a bad place. So the first `warmup_steps` steps grow in a straight line: step $i$ of $n$ (counted from 0) has
# $(i + 1) / n$. The cosine takes the steps that are left: $p$ is 0 at the first of them, and would be 1 one step past the last.


# %% kind="exercise" name="cosine"
def cosine_factor(step, warmup_steps, total_steps):
    """Return the factor at a step (the first is 0): a straight line up over the warm-up, then half a cosine down to 0."""
    ### BEGIN SOLUTION
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return (1 + math.cos(math.pi * progress)) / 2
    ### END SOLUTION


# %% kind="check" name="cosine" points=2
# The oracles: torch's CosineAnnealingLR where there is no warm-up, firstlight's Cosine where there is one.
plain = of_torch(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60), 60)
assert cosine_factor(0, 0, 60) == 1, f"without a warm-up the first step has the factor 1, and you give {cosine_factor(0, 0, 60)}"
apart = max(abs(cosine_factor(step, 0, 60) - factor) for step, factor in enumerate(plain))
assert apart < 1e-9, f"without a warm-up you are {apart:.2g} away from torch's CosineAnnealingLR: is p the share that is done?"
assert abs(cosine_factor(0, 5, 60) - 0.2) < 1e-9, f"step 0 of a warm-up over 5 has 1/5, and you give {cosine_factor(0, 5, 60):.3g}"
assert abs(cosine_factor(4, 5, 60) - 1) < 1e-9, f"the last step of the warm-up has the factor 1, and you give {cosine_factor(4, 5, 60):.3g}"
assert abs(cosine_factor(5, 5, 60) - 1) < 1e-9, "the cosine begins at 1 behind the warm-up: count p from there, not from the first step"
schedule = Cosine(warmup_epochs=0.5)
expected = [schedule.factor(step, total_steps=60, steps_per_epoch=10) for step in range(60)]
apart = max(abs(cosine_factor(step, 5, 60) - factor) for step, factor in enumerate(expected))
assert apart < 1e-9, f"you are {apart:.2g} away from firstlight's Cosine: the cosine takes the steps that the warm-up leaves"
lesson.measured("cosine_factor: farthest from torch and from firstlight", apart, most=1e-9)

# %% [markdown]
# ## By what validation says
#
# Steps and cosine are **static**: they are known before the training begins. **Plateau** is dynamic: it waits until the validation loss
# has stopped falling, and only then multiplies by `gamma`. A *bad* epoch is one that does not bring a loss below the best so far. So many
# bad epochs in a row are borne as `patience` says; the next one makes the factor drop, and the count of bad epochs starts again at 0.
#
# Write it as a function of the losses so far. (The best loss stays when the factor drops.)


# %% kind="exercise" name="plateau"
def plateau_factor(losses, gamma, patience):
    """Return the factor of the next epoch, after epochs that ended with these validation losses; 1 before the first."""
    factor, best, num_bad = 1.0, math.inf, 0
    ### BEGIN SOLUTION
    for loss in losses:
        if loss < best:
            best, num_bad = loss, 0
        else:
            num_bad += 1
        if num_bad > patience:
            factor, num_bad = factor * gamma, 0
    ### END SOLUTION
    return factor


# %% kind="check" name="plateau" points=2
def of_firstlight(losses, gamma, patience):
    """Return the same by firstlight/optim/schedules.py, whose state goes from epoch to epoch."""
    schedule = Plateau(gamma=gamma, patience=patience, threshold=0.0)
    state = schedule.start()
    for val_loss in losses:
        state = schedule.update(state, val_loss)
    return state.scale


assert plateau_factor([3.0, 2.0, 1.0], 0.1, patience=1) == 1, "while each epoch is better than the last the factor stays 1"
assert plateau_factor([1.0, 2.0], 0.1, patience=1) == 1, "one bad epoch is borne with a patience of 1: the second makes it drop"
assert plateau_factor([1.0, 2.0, 2.0], 0.1, patience=1) == 0.1, "two bad epochs with a patience of 1, and the factor has not dropped once"
assert plateau_factor([1.0, 2.0, 1.5, 2.0], 0.1, patience=2) == 0.1, (
    "1.5 is better than the epoch before, not than the best: it is bad, too"
)
assert plateau_factor([1.0, 2.0, 0.5, 2.0], 0.1, patience=1) == 1, "a new best loss starts the count of bad epochs again"
assert plateau_factor([1.0, 1.0, 1.0], 0.1, patience=1) == 0.1, "an equal loss is no better one"
assert plateau_factor([1.0, 2.0, 2.0, 2.0], 0.1, patience=1) == 0.1, "the count of bad epochs starts again after a drop"
drawn = torch.rand(40, generator=torch.Generator().manual_seed(0)).tolist()
apart = max(abs(plateau_factor(drawn[:num], 0.5, 2) - of_firstlight(drawn[:num], 0.5, 2)) for num in range(41))
assert apart < 1e-12, "on forty losses drawn at random you leave firstlight's Plateau"
lesson.measured("plateau_factor: farthest from firstlight's", apart, most=1e-12)

# %% [markdown]
# ## Back on the noisy slope
#
# The same walk, with schedules. All begin at 0.2; the cosine has a warm-up of 20 steps.

# %%
walks = {
    "constant 0.2": large,
    "constant 0.02": small,
    "0.2, a tenth of it every 200 steps": walk([0.2 * step_factor(step, 200, 1, 0.1) for step in range(NUM_STEPS)]),
    "0.2, cosine behind a warm-up": walk([0.2 * cosine_factor(step, 20, NUM_STEPS) for step in range(NUM_STEPS)]),
}
figure, (panel,) = new_figure(width=8, height=4)
for place, (name, squares) in enumerate(walks.items()):
    panel.plot(squares, color=color_of(place), label=name, linewidth=4 if place == 0 else 1.4, alpha=0.4 if place == 0 else 1)
panel.set(yscale="log")
tidy(panel, x="step", y="mean of x² over 2,000 walkers")
panel.legend(frameon=False, fontsize=9)
lesson.show(figure, "noisy_slope")
ends = {name: squares[-1].item() for name, squares in walks.items()}
of_steps, of_cosine = list(ends.values())[2:]
lesson.measured(
    "halfway, cosine over steps", walks["0.2, cosine behind a warm-up"][300] / walks["0.2, a tenth of it every 200 steps"][300], least=2
)
lesson.measured("end of the steps over the end of the constant 0.2", of_steps / ends["constant 0.2"], most=0.1)
lesson.measured("end of the cosine over the end of the constant 0.2", of_cosine / ends["constant 0.2"], most=0.1)
lesson.measured("end of the steps over the end of the constant 0.02", of_steps / ends["constant 0.02"], most=0.9)
lesson.measured("end of the cosine over the end of the constant 0.02", of_cosine / ends["constant 0.02"], most=0.9)

# %% [markdown]
# Both schedules are nearly as fast as the large learning rate and end below the small one. Behind each drop of the steps the noise falls
# towards a new floor. The cosine lies far above the steps for most of the way: its reward comes **at the end**.
#
# ## A real network
#
# The engine, four times: the same network, the same first weights, the same batches. Only the schedule differs.

# %%
NUM_TRAIN = lesson.on(mnist=lesson.pick(small=1_500, full=10_000), digits=None)
EPOCHS = lesson.on(mnist=lesson.pick(small=9, full=15), digits=9)
BASE_LR = lesson.on(mnist=0.03, digits=0.08)
schedules = {
    "constant": {"name": "constant"},
    "step": {"name": "step", "every_epochs": EPOCHS // 3, "gamma": 0.1},
    "cosine": {"name": "cosine", "warmup_epochs": 1},
    "plateau": {"name": "plateau", "gamma": 0.3, "patience": 1},
}
runs = {
    name: fl.train(
        "mnist_mlp",
        data=lesson.data,
        split={"num_train": NUM_TRAIN, "val_fraction": lesson.on(mnist=lesson.pick(small=0.05, full=0.1), digits=0.1)},
        optim={"name": "sgd", "lr": BASE_LR, "momentum": 0.9},
        schedule=schedule,
        train={"epochs": EPOCHS, "batch_size": 16, "log_every": 20},
        checkpoint={"every": EPOCHS},
        device={"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1},
        runs_dir="runs",
        console=Console(quiet=True),
    )
    for name, schedule in schedules.items()
}
for name, run in runs.items():
    print(f"{name:9} training loss {run.epochs[-1]['train_loss']:.4f}, validation accuracy {run.epochs[-1]['val_accuracy']:.4f}")

# %% [markdown]
# ## What was really used
#
# A schedule that is set is not yet a schedule that is applied: a classic fault is a scheduler that is stepped once a batch where it
# reckons in epochs, or the other way round. So the engine writes the learning rate **of every step** into the run (`metrics.jsonl`) at the
# moment when the optimizer uses it. Here they are, beside what your functions say.

# %%
lrs = {name: [row["lr"] for row in run.steps] for name, run in runs.items()}
total_steps = len(runs["cosine"].steps)
steps_per_epoch = total_steps // EPOCHS
val_losses = [row["val_loss"] for row in runs["plateau"].epochs]
by_hand = {
    "constant": [BASE_LR] * total_steps,
    "step": [BASE_LR * step_factor(step, steps_per_epoch, EPOCHS // 3, 0.1) for step in range(total_steps)],
    "cosine": [BASE_LR * cosine_factor(step, steps_per_epoch, total_steps) for step in range(total_steps)],
    "plateau": [BASE_LR * plateau_factor(val_losses[: step // steps_per_epoch], 0.3, 1) for step in range(total_steps)],
}
print(f"{total_steps:,} steps, {steps_per_epoch} an epoch; the first row of a step:", runs["cosine"].steps[0])
for name, used in lrs.items():
    apart = max(abs(one - other) for one, other in zip(used, by_hand[name], strict=True))
    lesson.measured(f"{name}: recorded learning rates against yours", apart, most=1e-9)
lesson.measured("times that plateau let the learning rate drop", len(set(lrs["plateau"])) - 1, least=1)

# %%
lesson.show(plot_steps(runs["cosine"].steps), "cosine_run")

# %% [markdown]
# Every run draws this picture for itself: `steps.png` in its folder. Its first epoch is the warm-up. Next come all four together.
#
# **Predict:** at the moment when the step schedule drops to a tenth, what does the training loss do: "rise", "fall" or "nothing"?

# %% kind="predict" name="drop"
### BEGIN SOLUTION
guess = "fall"
### END SOLUTION

# %%
losses = {name: [row["loss"] for row in run.steps] for name, run in runs.items()}
figure, (left, right) = new_figure(1, 2, width=11, height=4)
for place, name in enumerate(runs):
    epochs = [(step + 1) / steps_per_epoch for step in range(total_steps)]
    left.plot(epochs, lrs[name], color=color_of(place), linewidth=4 - place, label=name)  # wide below narrow: three begin alike
    right.plot(epochs, smooth(losses[name], steps_per_epoch), color=color_of(place), linewidth=1.4)
left.set(yscale="log", ylim=(BASE_LR * 5e-4, BASE_LR * 2))
right.set(yscale="log")
tidy(left, x="epoch", y="learning rate, as recorded")
tidy(right, x="epoch", y="training loss (nats), mean of an epoch's steps")
left.legend(frameon=False, fontsize=9, loc="lower left")
lesson.show(figure, "four_schedules")

# %%
first_drop = steps_per_epoch * (EPOCHS // 3)
before, after = (
    sum(part) / len(part)
    for part in (losses["step"][first_drop - steps_per_epoch : first_drop], losses["step"][first_drop : first_drop + steps_per_epoch])
)
went_on = losses["constant"][first_drop : first_drop + steps_per_epoch]
change = after / (sum(went_on) / len(went_on))
lesson.reveal(guess, "fall" if change < 0.9 else "rise" if change > 1.1 else "nothing", "when the learning rate drops, the loss will")
lesson.measured("loss of the epoch behind the drop over that of the epoch before it", after / before, most=0.9)
lesson.measured("loss of the epoch behind the drop over that of the constant schedule at the same time", change, most=0.9)
last = {name: sum(row["train_loss"] for row in run.epochs[-EPOCHS // 3 :]) / (EPOCHS // 3) for name, run in runs.items()}
lesson.measured("training loss at the end, step over constant", last["step"] / last["constant"], most=0.8)
lesson.measured("training loss at the end, cosine over constant", last["cosine"] / last["constant"], most=0.5)
lesson.measured("training loss at the end, plateau over constant", last["plateau"] / last["constant"], most=0.9)
halfway = runs["cosine"].epochs[EPOCHS // 2]["train_loss"]
lesson.measured("cosine: training loss halfway over that at the end", halfway / last["cosine"], least=2)

# %% [markdown]
# The drop shows as a cliff: the network was being knocked about at a height that its learning rate set, and a shorter step lets it settle
# lower. The same base learning rate without a schedule ends higher than with any of the three. The cosine gets most of what it gains in
# its second half.
#
# What this does **not** show: that a schedule beats the *best* constant learning rate, or by how much it helps on new images. For that,
# each schedule needs its own best base learning rate and several seeds. `firstlight sweep mnist_optimizers` asks that question: five
# optimizers under five schedules.

# %% [markdown] kind="answer" name="halfway" points=2
# A friend compares a constant learning rate with a cosine over 30 epochs. To save time they stop both after 15 of the 30, find the same
# loss, and write: "cosine does not help". What is wrong, and how do they get a fair answer in 15 epochs?
#
# ### BEGIN SOLUTION
# After half of a cosine the learning rate is still half of the base: it is as noisy there as a constant one of about that size, and the
# part in which the noise dies down has not come yet. A schedule belongs to its length. Train the cosine anew with 15 epochs as its whole,
# so that it falls to 0 within them, and compare the ends.
# ### END SOLUTION

# %% [markdown] kind="answer" name="dynamic" points=1
# Plateau needs no plan for when to drop. Name one thing that it needs instead which steps and cosine do not, and one way in which it can
# go wrong.
#
# ### BEGIN SOLUTION
# It needs a validation loss after each epoch, so the validation images take part in the training. And that loss is noisy: a few unlucky
# epochs in a row make the learning rate drop too early, and it never comes back; with a long patience it drops too late.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# - `firstlight/optim/schedules.py`: your three functions, and `linear` and `one_cycle` (Smith and Topin 2018); each has `warmup_epochs`.
#   A schedule is a function of the step, so a run that was interrupted goes on at the learning rate that it would have had.
# - `firstlight/engine/step.py` sets the learning rate in the same line that makes the step; `firstlight/engine/record.py` writes it down.
# - `firstlight train mnist_mlp schedule=cosine schedule.warmup_epochs=1`, or `schedule=plateau schedule.patience=2`; see `steps.png` in the
#   run's folder.
