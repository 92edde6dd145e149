# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Optimizers, from a narrow valley to Adam
#     minutes: 1
#     shows: [E6]
# ---

# %% [markdown]
# # Optimizers, from a narrow valley to Adam
#
# **You will learn** why plain gradient descent is slow where a loss is steep in one direction and flat in another, and what momentum,
# RMSprop and Adam do about it. You will write all three, hold them against PyTorch's own, and train a network with them.
#
# **Before:** lesson 5 (gradient descent). **Takes** about a minute.
#
# **Comes from** Polyak (1964), *Some methods of speeding up the convergence of iteration methods* (momentum); Tieleman and Hinton (2012),
# lecture 6.5 of *Neural networks for machine learning* (RMSprop); Kingma and Ba (2015), *Adam: a method for stochastic optimization*.

# %%
import math
from typing import NamedTuple

import torch
from torch import nn

import firstlight as fl
from firstlight.models.mlp import MLP
from firstlight.notebooks.lesson import begin
from firstlight.optim.rules import RULES
from firstlight.plotting.curves import plot_curves
from firstlight.plotting.style import color_of, new_figure, tidy
from firstlight.tracking.console import Console

lesson = begin("optimizers")

# %% [markdown]
# ## A valley
#
# A real loss has as many directions as the network has weights. Two are enough to see the trouble. Our loss is
#
# $$f(x, y) = \tfrac12 (x^2 + 100\,y^2)$$
#
# It is flat along $x$ and a hundred times more curved along $y$. The minimum is at $(0, 0)$. Its gradient is $(x, 100\,y)$, so no
# autograd is needed.

# %%
CURVES = torch.tensor([1.0, 100.0], dtype=torch.float64)
START = torch.tensor([-10.0, 1.0], dtype=torch.float64)


def height(point, turn=None):
    """Return the loss at one place [2], or at each of many [N, 2]; turn: a rotation of the valley."""
    point = point if turn is None else point @ turn
    return (CURVES * point.square()).sum(-1) / 2


def slope(point, turn=None):
    """Return the gradient of the loss at a place [2]."""
    return CURVES * point if turn is None else turn @ (CURVES * (point @ turn))


# %% [markdown]
# An optimizer is a **rule**: what it remembers at the start (`start`), and what one step does to a parameter (`update`). Both are plain
# functions. `firstlight/optim/rules.py` holds the rules of this lesson in that form; plain gradient descent is the first of them.
# `update` gets the parameter, its gradient, the memory (a dict of tensors) and the settings (a dict of numbers). It changes the parameter
# and the memory in place.


# %%
class Rule(NamedTuple):
    """The two functions of an optimizer; firstlight.optim.rules.Rule names the settings besides."""

    start: object
    update: object


def walk(rule, num_steps, turn=None, **settings):
    """Return the places [num_steps + 1, 2] that a rule goes through, from START down the valley."""
    point = START.clone() if turn is None else turn @ START
    memory, places = rule.start(point), [point.clone()]
    for _ in range(num_steps):
        rule.update(point, slope(point, turn), memory, {"weight_decay": 0.0, **settings})
        places.append(point.clone())
    return torch.stack(places)


def steps_to(places, target=1e-3, turn=None):
    """Return after how many steps the loss is below `target` for good, or infinity."""
    above = (height(places, turn) >= target).nonzero()
    last = int(above[-1]) if len(above) else -1
    return last + 1 if last + 1 < len(places) else math.inf


# %% [markdown]
# ## Plain gradient descent is held back by the steepest direction
#
# One step multiplies $x$ by $1 - \mathrm{lr}$ and $y$ by $1 - 100\,\mathrm{lr}$. As soon as one of these factors leaves the range from
# $-1$ to $1$, that coordinate grows with each step.
#
# **Predict before you run on:** what is the largest learning rate at which gradient descent does not run away?

# %% kind="predict" name="largest_lr"
### BEGIN SOLUTION
guess = 2 / 100
### END SOLUTION

# %%
low, high = 0.001, 1.0  # it comes down at the first, and runs away at the second: halve what lies between
for _ in range(40):
    lr = (low + high) / 2
    ends_lower = height(walk(RULES["sgd"], 200, lr=lr)[-1]) < height(START)
    low, high = (lr, high) if ends_lower else (low, lr)
lesson.reveal(guess, low, "largest learning rate")
lesson.measured("largest learning rate of plain gradient descent", low, least=0.0199, most=0.0203)
plain = walk(RULES["sgd"], 600, lr=2 / 101)
lesson.measured("steps of plain gradient descent, at its best learning rate", steps_to(plain), least=200, most=500)

# %% [markdown]
# So $y$ sets the learning rate, and $x$ has to creep: at the best learning rate, 2/101, each step takes only 2 % off both coordinates. The
# steeper $y$ is against $x$, the smaller that share. Real networks have such valleys.

# %% [markdown]
# ## Momentum
#
# A ball that rolls down a valley does not start anew at every moment. Momentum remembers a **velocity**: the old one, shrunk by a factor
# `momentum`, plus the new gradient. The step goes along the velocity. What points the same way in each step ($x$) adds up; what changes
# sign in each step ($y$) cancels out.
#
# $$v \leftarrow m\,v + g \qquad w \leftarrow w - \mathrm{lr}\cdot v$$
#
# Write `update` for it. `memory["velocity"]` is a tensor of the parameter's shape, zeros at first. Change the tensors **in place**
# (`mul_`, `add_`, `sub_`): who calls you keeps the same tensors.


# %% kind="exercise" name="momentum"
def roll(parameter, gradient, memory, settings):
    """Take one step of momentum with settings["lr"] and settings["momentum"]; parameter and memory are changed in place."""
    ### BEGIN SOLUTION
    velocity = memory["velocity"]
    velocity.mul_(settings["momentum"]).add_(gradient)
    parameter.sub_(settings["lr"] * velocity)
    ### END SOLUTION


# %% kind="check" name="momentum" points=2
# The oracle is PyTorch: both make 50 steps on the same gradients, in float64.
def farthest_apart(rule, optimizer_class, settings, options, num_steps=50):
    """Return how far a rule and an optimizer of torch ever are from each other on the same gradients, and after which step."""
    drawn = torch.Generator().manual_seed(0)
    ours = torch.randn(3, 4, generator=drawn, dtype=torch.float64)
    theirs = nn.Parameter(ours.clone())
    memory, optimizer = rule.start(ours), optimizer_class([theirs], **options)
    apart = []
    for step in range(num_steps):
        gradient = torch.randn(3, 4, generator=drawn, dtype=torch.float64) * 10 ** (-step % 3)
        theirs.grad = gradient.clone()
        optimizer.step()
        rule.update(ours, gradient, memory, settings)
        apart.append((ours - theirs.detach()).abs().max().item())
    first = next((step for step, distance in enumerate(apart, start=1) if not distance < 1e-6), None)
    return max(apart), first


my_momentum = Rule(RULES["momentum"].start, roll)
apart, first = farthest_apart(my_momentum, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.9})
assert first != 1, "the first step differs from torch's: with a velocity of zero it is lr times the gradient, downhill"
assert first != 2, "the second step differs: is the velocity kept in memory (changed in place), and shrunk before the gradient comes in?"
assert first is None, f"you leave torch's path at step {first}, by {apart:.2g} at most"
lesson.measured("momentum: farthest from torch.optim.SGD in 50 steps", apart, most=1e-6)

# %%
rolled = walk(my_momentum, 600, lr=(2 / 11) ** 2, momentum=(9 / 11) ** 2)  # the best pair for this valley (Polyak 1964)
gain = steps_to(plain) / steps_to(rolled)
lesson.measured("steps of momentum, at its best settings", steps_to(rolled), most=80)
lesson.measured("times fewer steps than plain gradient descent", gain, least=5)

# %% [markdown]
# Polyak proved it: plain gradient descent needs steps in proportion to the ratio of the curvatures (here 100), momentum in proportion to
# its **square root** (10).

# %% [markdown]
# ## RMSprop
#
# Another way out: give every parameter a learning rate of its own. RMSprop keeps a running mean of the **squared** gradient, and divides
# by its root. A direction with large gradients is braked, a flat one is sped up.
#
# $$s \leftarrow d\,s + (1 - d)\,g^2 \qquad w \leftarrow w - \mathrm{lr}\cdot\frac{g}{\sqrt{s} + \varepsilon}$$
#
# `memory["square"]` begins with zeros; the settings are `lr`, `decay` and `eps`.


# %% kind="exercise" name="rmsprop"
def scale(parameter, gradient, memory, settings):
    """Take one step of RMSprop; parameter and memory are changed in place."""
    ### BEGIN SOLUTION
    square = memory["square"]
    square.mul_(settings["decay"]).add_((1 - settings["decay"]) * gradient.square())
    parameter.sub_(settings["lr"] * gradient / (square.sqrt() + settings["eps"]))
    ### END SOLUTION


# %% kind="check" name="rmsprop" points=2
my_rmsprop = Rule(RULES["rmsprop"].start, scale)
settings, options = {"lr": 0.01, "decay": 0.99, "eps": 1e-8}, {"lr": 0.01, "alpha": 0.99, "eps": 1e-8}
apart, first = farthest_apart(my_rmsprop, torch.optim.RMSprop, settings, options)
assert first != 1, "the first step differs from torch's: is the square updated before it is used, with the share 1 - decay of the new one?"
assert first != 2, "the second step differs: is the mean of the squares kept in memory (changed in place)?"
assert first is None, f"you leave torch's path at step {first}, by {apart:.2g} at most"
coarse, _ = farthest_apart(my_rmsprop, torch.optim.RMSprop, settings | {"eps": 10.0}, options | {"eps": 10.0})
assert coarse < 1e-6, f"with a large eps you are {coarse:.2g} away: eps is added to the root, not under it"
lesson.measured("RMSprop: farthest from torch.optim.RMSprop in 50 steps", max(apart, coarse), most=1e-6)

# %% [markdown]
# ## Adam
#
# Adam does both: a running mean of the gradient (as momentum has it) over the root of a running mean of its square (as RMSprop has it).
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\,g \qquad s \leftarrow \beta_2 s + (1 - \beta_2)\,g^2$$
#
# Both means begin at zero, so in the first steps they are too small: after step $t$ only the share $1 - \beta^t$ of all weights is in the
# sum. Adam divides by that share:
#
# $$\hat m = \frac{m}{1 - \beta_1^t} \qquad \hat s = \frac{s}{1 - \beta_2^t}$$
#
# $$w \leftarrow w - \mathrm{lr}\cdot\frac{\hat m}{\sqrt{\hat s} + \varepsilon}$$
#
# **Predict:** the gradient at the start of our valley is $(-10, 100)$. With lr = 0.3, how far does the first step of Adam go along $x$?
# And if the whole loss were multiplied by 1,000?

# %% kind="predict" name="first_step"
### BEGIN SOLUTION
guess = 0.3
### END SOLUTION

# %% [markdown]
# Write it. `memory` holds `step` (a tensor with one number, 0 at first), `mean` and `square`; the settings are `lr`, `beta1`, `beta2` and
# `eps`.


# %% kind="exercise" name="adam"
def adapt(parameter, gradient, memory, settings):
    """Take one step of Adam; parameter and memory are changed in place."""
    beta1, beta2 = settings["beta1"], settings["beta2"]
    ### BEGIN SOLUTION
    step = memory["step"].add_(1).item()
    mean = memory["mean"].mul_(beta1).add_((1 - beta1) * gradient)
    square = memory["square"].mul_(beta2).add_((1 - beta2) * gradient.square())
    root = (square / (1 - beta2**step)).sqrt()
    parameter.sub_(settings["lr"] * mean / (1 - beta1**step) / (root + settings["eps"]))
    ### END SOLUTION


# %% kind="check" name="adam" points=3
my_adam = Rule(RULES["adam"].start, adapt)
settings, options = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}, {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}
apart, first = farthest_apart(my_adam, torch.optim.Adam, settings, options)
assert first != 1, "the first step differs from torch's: count the step first (t = 1), then divide both means by 1 - beta ** t"
assert first != 2, "the second step differs: are step, mean and square kept in memory (changed in place)?"
assert first is None, f"you leave torch's path at step {first}, by {apart:.2g} at most"
coarse, _ = farthest_apart(my_adam, torch.optim.Adam, settings | {"eps": 10.0}, options | {"eps": 10.0})
assert coarse < 1e-6, f"with a large eps you are {coarse:.2g} away: eps is added to the root of the corrected square"
lesson.measured("Adam: farthest from torch.optim.Adam in 50 steps", max(apart, coarse), most=1e-6)

# %%
adam_settings = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
adapted = walk(my_adam, 600, lr=0.3, **adam_settings)
first_step = (adapted[1] - adapted[0]).abs()
lesson.reveal(guess, first_step[0].item(), "length of Adam's first step along x")
lesson.measured("first step along x", first_step[0], least=0.2999, most=0.3001)
lesson.measured("first step along y, where the gradient is ten times larger", first_step[1], least=0.2999, most=0.3001)

# %% [markdown]
# The gradient has dropped out: $\hat m / \sqrt{\hat s} = g / |g|$ in the first step. **The learning rate of Adam is a length**, about how
# far a weight may move in one step. Multiply the loss by 1,000, and nothing changes. That is why one learning rate, 0.001, is a fair
# first guess for so many networks.

# %% [markdown]
# ## The paths
#
# The picture is stretched upwards: in truth the valley is ten times longer than wide.

# %%
scaled = walk(my_rmsprop, 600, lr=0.3, decay=0.9, eps=1e-8)
paths = {
    "gradient descent, lr 2/101": plain,
    "momentum 0.67, lr 0.033": rolled,
    "RMSprop, lr 0.3": scaled,
    "Adam, lr 0.3": adapted,
}
sideways = torch.linspace(-11, 3.5, 150, dtype=torch.float64)
upwards = torch.linspace(-4.2, 4.2, 150, dtype=torch.float64)
across, up = torch.meshgrid(sideways, upwards, indexing="xy")
heights = height(torch.stack([across, up], dim=-1))
figure, panels = new_figure(2, 2, width=11, height=6.4, sharex=True, sharey=True)
for place, (panel, (name, places)) in enumerate(zip(panels, paths.items(), strict=True)):
    panel.contour(across, up, heights, levels=[1, 10, 40, 100, 250, 500, 800], colors="#bbbbbb", linewidths=0.8)
    panel.plot(places[:61, 0], places[:61, 1], color=color_of(place), marker="o", markersize=2.5, linewidth=1)
    panel.plot(0, 0, marker="x", color="black", markersize=8)
    tidy(panel, x="x" if place > 1 else "", y="y" if place % 2 == 0 else "", title=f"{name}: the first 60 steps")
    panel.grid(visible=False)
lesson.show(figure, "paths")

# %%
figure, (panel,) = new_figure(width=8, height=4)
for place, (name, places) in enumerate(paths.items()):
    panel.plot(height(places[:401]).clamp(min=1e-12), color=color_of(place), label=name, linewidth=1.4)
panel.set(yscale="log", ylim=(1e-10, 3000))
tidy(panel, x="step", y="loss f(x, y)")
panel.legend(frameon=False, fontsize=9)
lesson.show(figure, "valley_loss")
lesson.measured("steps of Adam until the loss stays below 0.001", steps_to(adapted), most=300)
lesson.measured("highest loss of momentum on its way, over that at the start", height(rolled).max() / height(START), least=3)
lesson.measured("distance |y| of RMSprop from the minimum, after 600 steps", scaled[-1, 1].abs(), least=0.1, most=0.2)

# %% [markdown]
# Three things to see. Momentum swings far up both walls before it comes down: its loss first climbs to several times the loss at the
# start. A loss that rises for a few steps need not be a fault. It still wins here. RMSprop goes straight to the middle and then **never
# settles**: it divides a small gradient by its own size, so its steps stay as long as the learning rate, and it jumps from one wall to
# the other, half a step to each side. It needs a learning rate that falls (lesson 10). Adam damps its swings, because the mean of
# gradients that change sign is small.

# %% [markdown]
# ## Turn the valley by 45 degrees
#
# A network does not promise that its valleys lie along the axes. Turn ours, start at the same place in it, and walk again.
# **Predict:** for which of the two does nothing change at all: "momentum" or "adam"?

# %% kind="predict" name="turned"
### BEGIN SOLUTION
guess = "momentum"
### END SOLUTION

# %%
corner = math.sqrt(0.5)
turn = torch.tensor([[corner, -corner], [corner, corner]], dtype=torch.float64)
turned_rolled = walk(my_momentum, 600, turn, lr=(2 / 11) ** 2, momentum=(9 / 11) ** 2)
turned_adapted = walk(my_adam, 600, turn, lr=0.3, **adam_settings)
change = {
    "momentum": (height(turned_rolled, turn) - height(rolled)).abs().max().item(),
    "adam": (height(turned_adapted, turn) - height(adapted)).abs().max().item(),
}
lesson.reveal(guess, min(change, key=change.get), "nothing changes for")
lesson.measured("largest change of momentum's loss by turning", change["momentum"], most=1e-9)
lesson.measured("largest change of Adam's loss by turning", change["adam"], least=1)
later = (height(turned_adapted[30], turn) / height(adapted[30])).item()
lesson.measured("Adam's loss after 30 steps in the turned valley, over that along the axes", later, least=3)

# %% [markdown] kind="answer" name="why_turned" points=2
# Why does turning the valley leave momentum alone, and change Adam?
#
# ### BEGIN SOLUTION
# Momentum adds up whole gradients: turn the valley, and gradients, velocity and steps turn with it. Adam and RMSprop scale each
# coordinate by its own history. In the turned valley both coordinates have the same large gradients, so both get the same scale, and
# there is no flat coordinate left that could be sped up. They help where the parameters themselves differ in scale.
# ### END SOLUTION

# %% [markdown]
# ## A real network
#
# Now 784-128-64-10 (784 for MNIST's pixels) with **your** rules, one epoch with batches of 64 each, from the same first weights and over
# the same batches. To be fair, every rule gets a ladder of learning rates, each three times the one before.

# %%
train, val = lesson.load(num_train=lesson.pick(small=3_000, full=10_000))
image_shape = tuple(train.images.shape[1:])
EPOCHS = lesson.on(mnist=1, digits=lesson.pick(small=4, full=8))  # there are fewer digits


def train_with(rule, epochs=EPOCHS, **settings):
    """Train the network with a rule; return the mean loss over the last 10 batches. What runs away counts as infinity."""
    torch.manual_seed(0)
    model = MLP(image_shape, 10)
    memories = [rule.start(parameter.data) for parameter in model.parameters()]
    order, losses = torch.Generator().manual_seed(0), []
    for _ in range(epochs):
        for rows in torch.randperm(len(train.labels), generator=order).split(64):
            loss = nn.functional.cross_entropy(model(train.images[rows]), train.labels[rows])
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            for parameter, gradient, memory in zip(model.parameters(), gradients, memories, strict=True):
                rule.update(parameter.data, gradient, memory, {"weight_decay": 0.0, **settings})
            losses.append(loss.item())
    last = sum(losses[-10:]) / 10
    return last if math.isfinite(last) else math.inf


LADDER = lesson.pick(
    small=[1e-3, 1e-2, 1e-1, 1.0],
    full=[1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0],
)
rules = {
    "gradient descent": (RULES["sgd"], {}),
    "momentum 0.9": (my_momentum, {"momentum": 0.9}),
    "RMSprop": (my_rmsprop, {"decay": 0.99, "eps": 1e-8}),
    "Adam": (my_adam, adam_settings),
}
found = {name: [train_with(rule, lr=lr, **settings) for lr in LADDER] for name, (rule, settings) in rules.items()}
figure, (panel,) = new_figure(width=8, height=4.2)
for place, (name, losses) in enumerate(found.items()):
    panel.plot(LADDER, [min(loss, 10.0) for loss in losses], color=color_of(place), marker="o", markersize=4, label=name)
panel.axhline(math.log(10), color="black", linewidth=0.8, linestyle=":")
panel.text(LADDER[0], math.log(10) * 1.12, "ln 10: nothing learned", fontsize=8)
panel.set(xscale="log", yscale="log", ylim=(None, 12))
tidy(panel, x="learning rate", y="training loss (nats), last 10 batches")
panel.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
lesson.show(figure, "ladder")

# %%
best = {name: (min(losses), LADDER[losses.index(min(losses))]) for name, losses in found.items()}
for name, (loss, lr) in best.items():
    print(f"{name}: best at lr {lr:g}, loss {loss:.3f}")
lesson.measured("best lr of gradient descent over that of Adam", best["gradient descent"][1] / best["Adam"][1], least=3)
ten_times = found["momentum 0.9"][LADDER.index(0.01)] / found["gradient descent"][LADDER.index(0.1)]
lesson.measured(
    "loss of momentum at lr 0.01 over that of gradient descent at lr 0.1", ten_times, least=0.6, most=lesson.pick(small=1.6, full=1.4)
)
at_one_lr = [losses[LADDER.index(1e-3)] for losses in found.values()]
at_their_own = [loss for loss, _ in best.values()]
spread_at_one = lesson.measured("all at lr 0.001: worst loss of the four over the best", max(at_one_lr) / min(at_one_lr), least=2)
ratio = max(at_their_own) / min(at_their_own)
spread_at_own = lesson.measured("each at its own best lr: worst loss of the four over the best", ratio, most=spread_at_one)
lesson.measured("the second of these over the first", spread_at_own / spread_at_one, most=0.8)

# %% [markdown]
# Each rule has its own learning rate. Momentum with 0.9 goes about ten times as far as plain descent at the same setting (the velocity
# sums $1 + 0.9 + 0.81 + \dots = 10$ gradients), so a tenth of the learning rate gives nearly the same loss. For RMSprop and Adam it is a
# length, and lower still than that of plain descent. **Who compares optimizers at one learning rate compares learning rates.** When each
# has its own, the four end much closer together.

# %% [markdown] kind="answer" name="fair" points=1
# A friend writes: "Adam is far better than SGD: with lr = 0.001 it reached a loss of 0.3, and SGD still stood at 2." What do you ask them
# to do?
#
# ### BEGIN SOLUTION
# To try several learning rates for each of the two, a factor of about 3 apart and wide enough that both ends are bad, and to compare the
# best of each, over several seeds. 0.001 is near Adam's best, and far too small for plain gradient descent.
# ### END SOLUTION

# %% [markdown]
# ## In firstlight
#
# The same two in the engine, each at its usual learning rate. `optim` names the optimizer; everything else is the same run.

# %%
runs = {
    name: fl.train(
        "mnist_mlp",
        data=lesson.data,
        split={"num_train": len(train.labels)} if lesson.on(mnist=True, digits=False) else {},
        train={"epochs": lesson.pick(small=2, full=5), "batch_size": 64},
        schedule="constant",
        optim=optim,
        runs_dir="runs",
        console=Console(quiet=True),
    )
    for name, optim in {
        "sgd, momentum 0.9, lr 0.03": {"name": "sgd", "lr": 0.03, "momentum": 0.9},
        "adam, lr 0.001": {"name": "adam", "lr": 1e-3},
    }.items()
}
lesson.show(plot_curves({name: run.epochs for name, run in runs.items()}), "engine")
accuracies = [run.summary["val_accuracy"] for run in runs.values()]
lesson.measured(
    "lower of the two validation accuracies", min(accuracies), least=lesson.on(mnist=lesson.pick(small=0.75, full=0.94), digits=0.7)
)
lesson.measured("difference of the two", abs(accuracies[0] - accuracies[1]), most=lesson.pick(small=0.2, full=0.06))

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/optim/rules.py` holds your three rules, with Nesterov's momentum and AdamW. They train the lanes of a study, where many
# small networks learn in one program with a learning rate each. `firstlight/optim/fused.py` and torch.optim do the same for a single run;
# `tests/optim/test_rules.py` holds them to each other. `firstlight sweep mnist_optimizers` compares five optimizers under five schedules,
# three seeds each.
