# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: How weights begin
#     minutes: 1
#     shows: [C3, E3]
# ---

# %% [markdown]
# # How weights begin
#
# **You will learn** why a network may not start from zeros, what happens when its weights start too small, how large they should be, and
# how to see from inside that they are wrong.
#
# **Before:** lessons 2 to 4. **Takes** a minute.
#
# **Comes from** Glorot and Bengio (2010), *Understanding the difficulty of training deep feedforward neural networks*, and He, Zhang, Ren
# and Sun (2015), *Delving deep into rectifiers*.

# %%
import math
import tempfile
from pathlib import Path

import torch
from torch import nn

import firstlight as fl
from firstlight.data.loader import Batch
from firstlight.files import make_dir
from firstlight.inspection.layer_statistics import measure_layers
from firstlight.models import init
from firstlight.models.mlp import MLP
from firstlight.notebooks.lesson import begin
from firstlight.plotting.activations import Series, plot_depth
from firstlight.plotting.curves import smooth
from firstlight.plotting.style import color_of, new_figure, set_title, tidy
from firstlight.tracking.console import Console

lesson = begin("initialisation")
train, val = lesson.load(num_train=lesson.pick(small=1_000, full=None))
image_shape = tuple(train.images.shape[1:])
mean, std = train.images.mean(), train.images.std()
pixels = (train.images - mean) / std  # mean 0 and deviation 1: the formulas below count on it
print("mean", f"{pixels.mean():.2g}", "deviation", f"{pixels.std():.3f}")

# %% [markdown]
# ## All zeros
#
# Softmax regression started from zeros and did well (lesson 2). Let the engine train the network with two hidden layers from zeros, and
# from small random numbers between -0.01 and 0.01. Nothing else differs.

# %%
settings = {
    "data": lesson.data,
    "split": {
        "num_train": lesson.on(mnist=lesson.pick(small=1_000, full=10_000), digits=1_000),
        "val_fraction": lesson.on(mnist=0.05, digits=0.16),
    },
    "optim": {"name": "sgd", "lr": lesson.pick(small=0.3, full=lesson.on(mnist=0.1, digits=0.2)), "momentum": 0.0},
    "schedule": "constant",
    "train": {
        "epochs": lesson.on(mnist=lesson.pick(small=10, full=8), digits=lesson.pick(small=16, full=40)),
        "batch_size": 64,
        "log_every": 1,
    },
    "device": {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1},
}
folder = tempfile.mkdtemp(prefix="init-", dir=make_dir(Path("runs")))
runs = {}
for name in ("zeros", "uniform"):
    model = {"name": "mlp", "hidden": [128, 64], "init": name}
    runs[name] = fl.train("mnist_mlp", **settings, model=model, name=name, runs_dir=folder, console=Console(quiet=True))
    last = runs[name].epochs[-1]
    print(f"{name}: training loss {last['train_loss']:.4f}, validation accuracy {last['val_accuracy']:.3f}")
lesson.measured("validation accuracy from zeros", runs["zeros"].epochs[-1]["val_accuracy"], most=0.15)
lesson.measured("training loss from zeros, beside ln 10", runs["zeros"].epochs[-1]["train_loss"] - math.log(10), least=-0.02, most=0.02)
lesson.measured(
    "validation accuracy from U(-0.01, 0.01)", runs["uniform"].epochs[-1]["val_accuracy"], least=lesson.pick(small=0.5, full=0.85)
)

# %% [markdown]
# Why? Look into the run. The weights that it kept tell everything: count how many of the 128 units of the first layer differ from each
# other.


# %%
def distinct(weight):
    """Return how many rows of a matrix differ, to six digits of its largest number."""
    largest = weight.detach().abs().max().clamp(min=1e-30)
    return len(torch.unique((weight.detach() / largest * 1e6).round(), dim=0))


for name, run in runs.items():
    print(f"{name}:")
    for key, weight in fl.load_model(run, which="last").state_dict().items():
        different = f", {distinct(weight)} different rows of {len(weight)}" if weight.dim() == 2 else ""
        print(f"  {key:15s} largest {weight.abs().max():.3f}{different}")
from_zeros = fl.load_model(runs["zeros"], which="last")
lesson.measured("different units in the first layer, from zeros", distinct(from_zeros.linear1.weight), most=1)
lesson.measured("largest weight of that layer after training", from_zeros.linear1.weight.detach().abs().max(), most=0)
lesson.measured(
    "different units in the first layer, from U(-0.01, 0.01)", distinct(fl.load_model(runs["uniform"]).linear1.weight), least=120
)

# %% [markdown]
# From zeros nothing moves but the last bias: each hidden value is 0, so the last matrix gets no gradient; the matrix is 0, so nothing
# flows back through it.
#
# ## All alike
#
# Is it because of the zero? Fill each weight with the same number, 0.02. Now there is a gradient.
#
# **Predict:** after training, how many of the 128 units of the first layer differ from each other?

# %% kind="predict" name="constant"
### BEGIN SOLUTION
guess = 1
### END SOLUTION


# %%
def learn(model, lr, steps):
    """Train on batches of 64 that a seed draws; return the loss of each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(pixels), (64,), generator=generator)
        loss = nn.functional.cross_entropy(model(pixels[rows]), train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


alike = MLP(image_shape, 10)
with torch.no_grad():
    for weight in (alike.linear1.weight, alike.linear2.weight, alike.linear3.weight):
        weight.fill_(0.02)
before = alike.linear1.weight.detach().clone()
losses = learn(alike, lr=0.1, steps=200)
lesson.reveal(guess, distinct(alike.linear1.weight), "different units after training")
lesson.measured("how far the weights moved at most", (alike.linear1.weight.detach() - before).abs().max(), least=0.001)
lesson.measured("different units after training from one constant", distinct(alike.linear1.weight), most=1)
lesson.measured("loss of the last 20 steps", sum(losses[-20:]) / 20, least=1.0)

# %% [markdown]
# The weights moved, and all units moved in the same way: units that are alike compute the same, get the same gradient, and stay alike.
# The layer of 128 is worth one unit. That is the **symmetry** that random numbers break. It is not about zero.
#
# ## How large?
#
# Random, then. But how large? A unit adds up `fan_in` products, `fan_in` being the number of its inputs. If the inputs have size 1 and
# the weights the deviation $s$, the sum has the deviation $s \sqrt{fan\_in}$. ReLU then throws away one half. He's rule keeps the mean
# square the same from layer to layer:
#
# $$s = \sqrt{2 / fan\_in}$$
#
# Fill a matrix by it, in place, from the normal distribution. PyTorch keeps weights as [outputs, inputs].


# %% kind="exercise" name="kaiming"
def kaiming_normal(weight):
    """Fill weight [outputs, inputs] in place from the normal distribution with mean 0 and He's deviation."""
    with torch.no_grad():
        ### BEGIN SOLUTION
        weight.normal_(0, math.sqrt(2 / weight.shape[1]))
        ### END SOLUTION


# %% kind="check" name="kaiming" points=2
mine, theirs = torch.zeros(300, 700), torch.zeros(300, 700)
torch.manual_seed(0)
kaiming_normal(mine)
torch.manual_seed(0)
nn.init.kaiming_normal_(theirs, nonlinearity="relu")
ratio = (mine.std() / theirs.std()).item()
assert mine.count_nonzero() > 0, "the matrix is still zero: fill it in place"
assert abs(ratio - math.sqrt(700 / 300)) > 0.02, "fan_in is the number of inputs, the second dimension; this took the outputs"
assert abs(ratio - math.sqrt(2 / 700)) > 0.002, "this is the variance; the deviation is its square root"
assert abs(ratio - 1 / math.sqrt(2)) > 0.02, "a factor of 2 is missing: ReLU throws away one half"
assert abs(ratio - 1) < 0.02, f"the deviation is {mine.std():.4f} and should be {math.sqrt(2 / 700):.4f}"
assert abs(mine.mean()) < 0.001, f"the mean is {mine.mean():.4f} and should be 0"
assert mine.abs().max() / mine.std() > 3, "no number is far out: this is not the normal distribution"
print("largest difference to torch.nn.init:", f"{(mine - theirs).abs().max():.1g}")

# %% [markdown]
# Glorot's rule (called Xavier, after his first name) looks at both ways: the signal forwards passes `fan_in`, the gradient backwards
# `fan_out`. It takes the mean of the two, and no factor for ReLU: variance $2 / (fan\_in + fan\_out)$. Fill uniformly from $(-a, a)$: the
# variance of that is $a^2 / 3$.


# %% kind="exercise" name="xavier"
def xavier_uniform(weight):
    """Fill weight [outputs, inputs] in place from the uniform distribution with Glorot's variance."""
    with torch.no_grad():
        ### BEGIN SOLUTION
        a = math.sqrt(6 / (weight.shape[0] + weight.shape[1]))
        weight.uniform_(-a, a)
        ### END SOLUTION


# %% kind="check" name="xavier" points=2
mine, theirs = torch.zeros(300, 700), torch.zeros(300, 700)
torch.manual_seed(0)
xavier_uniform(mine)
torch.manual_seed(0)
init.xavier_uniform(theirs)
bound = math.sqrt(6 / 1_000)
assert mine.count_nonzero() > 0, "the matrix is still zero: fill it in place"
assert abs(mine.abs().max() - math.sqrt(2 / 1_000)) > 0.002, (
    "this is the deviation; the bound of a uniform distribution is the root of 3 times that"
)
assert abs(mine.abs().max() - bound) < 0.001, f"the bound is {mine.abs().max():.4f} and should be {bound:.4f}"
assert abs(mine.mean()) < 0.001, f"the mean is {mine.mean():.4f}: from -a to a, not from 0"
assert abs(mine.std() - math.sqrt(2 / 1_000)) < 0.001, "the bound is right, the distribution is not uniform"
print("largest difference to firstlight.models.init:", f"{(mine - theirs).abs().max():.1g}")

# %% [markdown]
# ## What depth does to a size
#
# In a chain of ten layers each factor counts ten times. A layer of width 128 with ReLU, filled with the deviation 0.01.
#
# **Predict:** by which factor does such a layer change the size of what it is given? (The root of half of 128, times 0.01.)

# %% kind="predict" name="factor"
### BEGIN SOLUTION
guess = 0.01 * math.sqrt(128 / 2)
### END SOLUTION

# %%
rules = {
    "normal, 0.01": lambda weight: weight.normal_(0, 0.01),
    "Xavier": xavier_uniform,
    "Kaiming": kaiming_normal,
    "normal, 0.25": lambda weight: weight.normal_(0, 0.25),
}
depth, width = 10, 128
sizes = {}
for name, fill in rules.items():
    torch.manual_seed(0)
    values = pixels[:500].flatten(1)
    sizes[name] = []
    for _ in range(depth):
        matrix = torch.empty(width, values.shape[1])
        with torch.no_grad():
            fill(matrix)
        values = torch.relu(values @ matrix.T)
        sizes[name].append(values.square().mean().sqrt().item())
factors = {name: (found[-1] / found[0]) ** (1 / (depth - 1)) for name, found in sizes.items()}

figure, (axes,) = new_figure(width=7, height=3.8)
for number, (name, found) in enumerate(sizes.items()):
    axes.plot(range(1, depth + 1), found, marker="o", markersize=4, color=color_of(number), label=f"{name}: {factors[name]:.2f} a layer")
axes.set(yscale="log")
axes.legend(frameon=False, fontsize=9)
tidy(axes, x="layer", y="size of the hidden values\n(root mean square)", title="Ten layers of 128 units, before any training")
lesson.show(figure, "depth")

# %%
lesson.reveal(guess, factors["normal, 0.01"], "factor of a layer with the deviation 0.01")
lesson.measured("factor of a layer, normal 0.01", factors["normal, 0.01"], least=0.06, most=0.1)
lesson.measured("factor of a layer, Xavier", factors["Xavier"], least=0.6, most=0.8)
lesson.measured("factor of a layer, Kaiming", factors["Kaiming"], least=0.85, most=1.15)
lesson.measured("factor of a layer, normal 0.25", factors["normal, 0.25"], least=1.7, most=2.3)

# %% [markdown]
# With 0.01 nothing is left after ten layers; with 0.25 it explodes; Xavier loses the root of one half at each ReLU; Kaiming holds.
#
# ## The same, seen by a training step
#
# What goes forwards also goes backwards. `firstlight inspect activations` runs a step and measures each layer on the way; here are the
# functions that it calls.


# %%
def deep(name):
    """Return a network with ten hidden layers of 64 units that starts by a rule of firstlight/models/init.py."""
    torch.manual_seed(0)
    return MLP(image_shape, 10, hidden=(64,) * 10, init=name)


names = {"normal_small": "normal, 0.01", "xavier_uniform": "Xavier", "kaiming_uniform": "Kaiming"}
batch = Batch(pixels[:256], train.labels[:256], torch.arange(256))
series, gradients = [], {}
for number, (rule, text) in enumerate(names.items()):
    loss, layers = measure_layers(deep(rule), batch, seed=0, device="cpu")
    series.append(Series(text, number, False, [layer.to_json() for layer in layers], [layer.histogram for layer in layers]))
    gradients[rule] = layers[0].weight_gradient
    print(f"{text:12s} loss {loss:.4f}, gradient of the first layer {layers[0].weight_gradient:.2e}")
lesson.show(plot_depth(series, title="A network with ten hidden layers before training"), "layers")
lesson.measured(
    "gradient of the first layer, Kaiming over normal 0.01", gradients["kaiming_uniform"] / gradients["normal_small"], least=1e6
)

# %% [markdown]
# ## The slow start
#
# Two hidden layers forgive a bad start; ten do not. Left: the network of lesson 2 from five starts. Right: ten hidden layers.

# %%
lr = lesson.on(mnist=0.1, digits=0.2) * lesson.pick(small=2, full=1)
shallow_steps, deep_steps = lesson.pick(small=200, full=800), lesson.pick(small=140, full=400)
starts = {
    "zeros": "zeros",
    "uniform": "uniform, ±0.01",
    "normal_small": "normal, 0.01",
    "xavier_uniform": "Xavier",
    "kaiming_uniform": "Kaiming",
}
shallow, tall = {}, {}
for rule in starts:
    torch.manual_seed(0)
    shallow[rule] = learn(MLP(image_shape, 10, init=rule), lr=lr, steps=shallow_steps)
for rule in names:
    tall[rule] = learn(deep(rule), lr=0.05, steps=deep_steps)

figure, (left, right) = new_figure(1, 2, width=11, height=4, sharey=True)
for panel, curves, title in ((left, shallow, "two hidden layers"), (right, tall, "ten hidden layers")):
    for rule, curve in curves.items():
        steps = range(1, len(curve) + 1)
        look = "--" if rule == "kaiming_uniform" else "-"  # two hidden layers: it covers Xavier's curve
        panel.plot(steps, smooth(curve, 10), look, color=color_of(list(starts).index(rule)), label=starts[rule])
    tidy(panel, x="step", y="loss of the batch (nats), mean of 10", title=title)
left.legend(frameon=False, fontsize=9)
set_title(figure, "The plateau at ln 10 = 2.30, by how the weights begin")
lesson.show(figure, "plateau")


# %%
def steps_to(curve, level=1.5):
    """Return the first step at which the mean loss of ten steps is below the level; the number of steps where it never is."""
    return next((step for step in range(10, len(curve)) if sum(curve[step - 10 : step]) / 10 < level), len(curve))


waits = {rule: steps_to(curve) for rule, curve in shallow.items()}
print("steps until the loss is below 1.5:", {starts[rule]: wait for rule, wait in waits.items()})
ends = {rule: sum(curve[-10:]) / 10 for rule, curve in shallow.items()}
lesson.measured("two hidden layers: loss at the end, zeros", ends["zeros"], least=2.2)
lesson.measured("two hidden layers: steps to 1.5, normal 0.01 over Kaiming", waits["normal_small"] / waits["kaiming_uniform"], least=4)
lesson.measured("two hidden layers: steps to 1.5, uniform over normal 0.01", waits["uniform"] / waits["normal_small"], least=1.2)
tall_ends = {rule: sum(curve[-10:]) / 10 for rule, curve in tall.items()}
lesson.measured("ten hidden layers: loss at the end, normal 0.01", tall_ends["normal_small"], least=2.2)
lesson.measured("ten hidden layers: loss at the end, Kaiming", tall_ends["kaiming_uniform"], most=1.0)
lesson.measured(
    "ten hidden layers: steps to 1.5, Xavier over Kaiming", steps_to(tall["xavier_uniform"]) / steps_to(tall["kaiming_uniform"]), least=1.5
)

# %% [markdown]
# Small random weights do train, but first they stand for a while at ln 10, the loss of a network that knows nothing: the signals grow
# slowly until they are large enough to pull. Uniform from -0.01 to 0.01 has a smaller deviation than normal with 0.01, and waits longer.
# With ten layers, 0.01 never leaves the plateau here.

# %% [markdown] kind="answer" name="why_not_zero" points=2
# Softmax regression may start from zeros, a network with a hidden layer may not. Why? And why may the *biases* of the network start at
# zero?
#
# ### BEGIN SOLUTION
# In softmax regression each weight sits between its own pixel and its own class, and the gradient is the pixel times the error of that
# class: it differs from weight to weight from the first step on, and the loss has one valley. Hidden units have nothing of their own:
# alike, they get the same gradient for ever, and at zero none at all. The biases may be zero because the random weights have already made
# the units different.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/models/init.py` has all of these rules by name (`model.init=kaiming_uniform`), the same for raw tensors and for modules.
# `firstlight inspect activations RUN` draws the figures of each layer, `firstlight inspect health CONFIG` finds units that are copies of
# each other, and a start from which nothing can be learned.
