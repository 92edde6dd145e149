# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: A network by hand
#     minutes: 1
#     shows: [A13, C1, C2, C11, C13]
# ---

# %% [markdown]
# # A network by hand
#
# **You will learn** what a classifier is made of, down to the last line: probabilities from scores, a loss from probabilities, a step
# from the loss. You write softmax regression and a network with two hidden layers on plain tensors, train both, and see the same numbers
# come out of PyTorch's own layers and out of firstlight's engine.
#
# **Before:** lesson 1 (tensors and autograd). **Takes** a minute or two.
#
# **Comes from** the course exercise "MNIST without torch.nn". Softmax regression is Cox (1958) for many classes; training hidden layers
# by carrying the error backwards is Rumelhart, Hinton and Williams (1986), *Learning representations by back-propagating errors*.

# %%
import inspect
import math
import tempfile
from pathlib import Path

import torch
from torch import nn

import firstlight as fl
from firstlight.data.build import load_training_data
from firstlight.data.draws import permutation
from firstlight.data.places import data_dir_of
from firstlight.engine.loss import cross_entropy_with_gradient
from firstlight.files import make_dir
from firstlight.models import scratch
from firstlight.models.layers import count_parameters
from firstlight.models.mlp import MLP
from firstlight.models.scratch import ScratchMLP
from firstlight.notebooks.lesson import begin
from firstlight.plotting.style import color_of, new_figure, set_title, tidy
from firstlight.tracking.console import Console

lesson = begin("network_by_hand")
train, val = lesson.load(num_train=lesson.pick(small=3_000, full=None))
image_shape = tuple(train.images.shape[1:])
num_pixels = math.prod(image_shape)
print(len(train.images), "training images of", num_pixels, "pixels,", len(val.images), "to validate on")

# %% [markdown]
# ## From scores to probabilities
#
# A classifier gives each image ten scores, called **logits**: any real numbers, the largest is its answer. **Softmax** makes
# probabilities of them:
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}$$
#
# All are positive, and they add up to 1. The formula has a trap. **Predict:** what does it give for the class with the logit 1000, when
# you compute it as it stands in float32: "1", "0", "inf" or "nan"?

# %% kind="predict" name="overflow"
### BEGIN SOLUTION
guess = "nan"
### END SOLUTION

# %%
logits = torch.tensor([[1000.0, 0.0, -1000.0]])
as_written = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
print("e^1000 is", logits.exp()[0, 0].item(), "in float32, and inf / inf is", as_written[0, 0].item())
lesson.reveal(guess, str(as_written[0, 0].item()), "softmax of 1000, as the formula is written")

# %% [markdown]
# The way out: subtract the largest logit of each row first. Numerator and denominator are then divided by the same number, so nothing
# changes, and no exponent is above 0.


# %% kind="exercise" name="softmax"
def softmax(logits):
    """Return probabilities [B, K] of logits [B, K]; no logit, however large, may overflow."""
    ### BEGIN SOLUTION
    shifted = logits - logits.amax(dim=1, keepdim=True)
    return shifted.exp() / shifted.exp().sum(dim=1, keepdim=True)
    ### END SOLUTION


# %% kind="check" name="softmax" points=1
example = torch.randn(6, 10, generator=torch.Generator().manual_seed(0)) * 5
extreme = torch.tensor([[1000.0, 0.0, -1000.0], [-1000.0, -1000.0, -1000.0]])
assert softmax(example).shape == example.shape, f"the shape is {tuple(softmax(example).shape)}, not {tuple(example.shape)}"
assert not torch.allclose(softmax(example), example.softmax(0), atol=1e-6), "each column adds up to 1; it should be each row"
assert torch.allclose(softmax(example), example.softmax(1), atol=1e-6), (
    "these are not the probabilities: is each row divided by its own sum?"
)
assert softmax(extreme).isfinite().all(), "a logit of 1000 or -1000 gives nan: subtract the largest of each row, not of all"
assert torch.allclose(softmax(extreme), extreme.softmax(1), atol=1e-6), "large logits give wrong probabilities"
print("rows add up to 1 within", f"{(softmax(example).sum(1) - 1).abs().max():.1g}")

# %% [markdown]
# ## From probabilities to a loss
#
# The label says which class is right. A good classifier gives that class a high probability $p$, so its loss is $-\log p$: 0 where $p$ is
# 1, and without bound as $p$ goes to 0. The mean over the batch is the **cross-entropy**.
#
# Again there is a trap: for logits [1000, 0] and label 1, $p$ is 0 in float32 and $-\log p$ infinite. Put the two formulas together and
# take the logarithm by hand. What stays is $\log \sum_j e^{z_j} - z_{label}$, with the largest logit taken out of the sum as before.


# %% kind="exercise" name="cross_entropy"
def cross_entropy(logits, labels):
    """Return the mean over the batch of log(sum of e^logits) minus the logit of the label; logits [B, K], labels int64 [B]."""
    ### BEGIN SOLUTION
    top = logits.amax(dim=1)
    log_of_sum = top + (logits - top[:, None]).exp().sum(dim=1).log()
    return (log_of_sum - logits[torch.arange(len(labels)), labels]).mean()
    ### END SOLUTION


# %% kind="check" name="cross_entropy" points=2
wanted = torch.tensor([3, 1, 4, 1, 5, 9])
true_loss = nn.functional.cross_entropy(example, wanted)
loss = cross_entropy(example, wanted)
assert loss.shape == (), f"the loss has shape {tuple(loss.shape)}; it is one number, the mean over the batch"
assert not torch.isclose(loss, true_loss * len(wanted)), "this is the sum over the batch, not the mean"
assert torch.isclose(loss, true_loss, rtol=1e-6), (
    f"the loss is {loss:.4f}, it should be {true_loss:.4f}: is the logit of each row's own label taken?"
)
hopeless = cross_entropy(torch.tensor([[1000.0, 0.0]]), torch.tensor([1]))
assert hopeless.isfinite(), "logits [1000, 0] with label 1 give an infinite loss; it is 1000: do not go through the probability"
assert torch.isclose(hopeless, torch.tensor(1000.0)), f"logits [1000, 0] with label 1 cost {hopeless:.4g}, and should cost 1000"
print("cross_entropy agrees with torch, and with 1000 where there is no probability left")

# %% [markdown]
# ## What the loss asks for
#
# The gradient of the cross-entropy by the logits is as simple as it can be: the probabilities, minus 1 at the label, over the size of the
# batch. Each logit is pushed by how far its probability is from what the label says. Autograd finds the same; the engine writes it down
# directly (`firstlight/engine/loss.py`) and saves the walk.

# %%
asked = example.clone().requires_grad_()
cross_entropy(asked, wanted).backward()
by_formula = (softmax(example) - nn.functional.one_hot(wanted, 10)) / len(wanted)
_, by_engine = cross_entropy_with_gradient(example, wanted, scale=torch.tensor(1.0))
lesson.measured("autograd's gradient against the formula", (asked.grad - by_formula).abs().max(), most=1e-6)
lesson.measured("the engine's gradient against the formula", (by_engine - by_formula).abs().max(), most=1e-6)

# %% [markdown]
# ## One step down
#
# `backward` leaves in `.grad` of each parameter in which direction the loss grows. Gradient descent goes a little the other way, for each
# parameter: from the parameter take `lr` times its gradient. Two rules: do it **in place** (`-=`), so that it stays the tensor that the
# model holds, and do it under `torch.no_grad()`, because the step itself is nothing to differentiate. Afterwards forget the gradient: set
# it to None.


# %% kind="exercise" name="sgd_step"
def sgd_step(parameters, lr):
    """Take one step down the gradient for each parameter, in place, and set its gradient to None."""
    ### BEGIN SOLUTION
    with torch.no_grad():
        for parameter in parameters:
            parameter -= lr * parameter.grad
            parameter.grad = None
    ### END SOLUTION


# %% kind="check" name="sgd_step" points=2
def two_parameters():
    return [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.zeros(3))]


mine, theirs = two_parameters(), two_parameters()
optimizer = torch.optim.SGD(theirs, lr=0.5)
for pair in (mine, theirs):
    (torch.tensor([[1.0, 2.0]]) @ pair[0] + pair[1]).square().sum().backward()
before = [(id(parameter), parameter.data_ptr()) for parameter in mine]
sgd_step(mine, lr=0.5)
optimizer.step()
assert not torch.equal(mine[0], torch.ones(2, 3)), "nothing moved: is the step taken in place?"
assert [(id(parameter), parameter.data_ptr()) for parameter in mine] == before, (
    "a parameter is another tensor now: use -=, the model keeps the old one"
)
assert torch.allclose(mine[0], theirs[0]), (
    f"after the step the first weight is {mine[0][0, 0]:.2f} and should be {theirs[0][0, 0]:.2f}: down, not up?"
)
assert torch.allclose(mine[1], theirs[1]), "the first parameter moved as it should, the second did not"
assert all(parameter.grad is None for parameter in mine), "a gradient is still there: the next backward would add to it"
assert all(parameter.requires_grad for parameter in mine), "a parameter no longer asks for a gradient: use `with torch.no_grad()`"
print("sgd_step takes the step of torch.optim.SGD")

# %% [markdown]
# ## Softmax regression
#
# Everything is there. One matrix of a weight for each pixel and class, one bias for each class, both zero at first. Images as rows, times
# the matrix, plus the bias: the logits. The four lines in the loop are all that training is.


# %%
def accuracy(logits, labels):
    """Return the share of rows whose largest logit is the label's."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


epochs, lr, batch_size = lesson.on(mnist=lesson.pick(small=6, full=10), digits=lesson.pick(small=25, full=50)), 0.1, 64
weight = torch.zeros(num_pixels, 10, requires_grad=True)
bias = torch.zeros(10, requires_grad=True)
lesson.measured(
    "numbers that softmax regression learns", weight.numel() + bias.numel(), least=lesson.on(mnist=7_850, digits=650), most=7_850
)

generator = torch.Generator().manual_seed(0)
rows = train.images.flatten(1)
for _ in range(epochs):
    for batch in torch.randperm(len(rows), generator=generator).split(batch_size):
        logits = rows[batch] @ weight + bias
        loss = cross_entropy(logits, train.labels[batch])
        loss.backward()
        sgd_step([weight, bias], lr)

# %% [markdown]
# **Predict:** one weight a pixel and class, no hidden layer. Which share of the validation images does it get right?

# %% kind="predict" name="without_hidden_layer"
### BEGIN SOLUTION
guess = 0.92
### END SOLUTION

# %%
regression_accuracy = accuracy(val.images.flatten(1) @ weight.detach() + bias.detach(), val.labels)
lesson.reveal(guess, regression_accuracy, "validation accuracy of softmax regression")
lesson.measured("validation accuracy of softmax regression", regression_accuracy, least=lesson.pick(small=0.85, full=0.91))

# %% [markdown]
# What did it learn? The weights of each class are a picture: purple pixels speak for the class, orange ones against it.

# %%
figure, panels = new_figure(2, 5, width=9, height=4.4)
largest = weight.detach().abs().max().item()
for digit, panel in enumerate(panels):
    drawn = panel.imshow(weight.detach()[:, digit].view(image_shape)[0].numpy(), cmap="PuOr", vmin=-largest, vmax=largest)
    panel.set_title(f"speaks for {digit}", fontsize=9)
    panel.axis("off")
bar = figure.colorbar(drawn, ax=panels, shrink=0.8)
bar.set_label("against  ←  weight  →  for")
set_title(figure, "Softmax regression: ten pictures, laid over each image")
lesson.show(figure, "weights")

# %% [markdown]
# ## Hidden layers
#
# Softmax regression lays ten fixed pictures over the image. It cannot say "a stroke here, but only if there is none there". A hidden
# layer can: its units are such pictures too, with **ReLU** behind them (`torch.relu`: negative values become 0), and the next layer
# weighs what they found.
#
# Write the forward pass for any number of layers. Weights are kept as [outputs, inputs], as PyTorch does, so use `weight.T`. ReLU stands
# behind every layer but the last: logits may be negative.


# %% kind="exercise" name="forward"
def forward(layers, images):
    """Return logits [B, K] for images [B, C, H, W]; layers: a list of pairs (weight [out, in], bias [out])."""
    ### BEGIN SOLUTION
    values = images.flatten(1)
    for number, (matrix, shift) in enumerate(layers, start=1):
        values = values @ matrix.T + shift
        values = torch.relu(values) if number < len(layers) else values
    return values
    ### END SOLUTION


# %% kind="check" name="forward" points=2
torch.manual_seed(0)
reference = ScratchMLP(image_shape, 10, hidden=(32, 16))
few = val.images[:50]
found, expected = forward(reference.layers, few), reference(few)
assert tuple(found.shape) == (50, 10), f"the logits have shape {tuple(found.shape)}, not (50, 10)"
assert not torch.allclose(found, expected.relu(), atol=1e-5), "the logits have no negative values: no ReLU behind the last layer"
reference.activation = lambda values: values
assert not torch.allclose(found, reference(few), atol=1e-5), "without ReLU between them, three layers are worth one: a product of matrices"
assert torch.allclose(found, expected, atol=1e-5), (
    f"the logits are {(found - expected).abs().max():.2g} off: is each bias added before its ReLU?"
)
assert torch.allclose(forward(reference.layers[:1], few), few.flatten(1) @ reference.layers[0][0].T + reference.layers[0][1], atol=1e-5), (
    "a single layer is the last one: no ReLU"
)
print("forward agrees with firstlight.models.scratch")

# %% [markdown]
# Two hidden layers of 128 and 64 units, the network of most first courses. The loop is the one from before, with `forward` in place of
# the product. The weights start random (lesson 6 says why, and how large), and the budget is the same: as many epochs, the same batches,
# the same learning rate.

# %%
torch.manual_seed(0)
start = ScratchMLP(image_shape, 10, hidden=(128, 64))  # only for its weights
layers = start.layers
parameters = [tensor for pair in layers for tensor in pair]
num_learned = sum(tensor.numel() for tensor in parameters)
lesson.measured("numbers that the network learns", num_learned, least=lesson.on(mnist=109_386, digits=17_226), most=109_386)

generator = torch.Generator().manual_seed(0)
losses = []
for _ in range(epochs):
    total = 0.0
    for batch in torch.randperm(len(rows), generator=generator).split(batch_size):
        loss = cross_entropy(forward(layers, train.images[batch]), train.labels[batch])
        loss.backward()
        sgd_step(parameters, lr)
        total += loss.item() * len(batch)
    losses.append(total / len(rows))
print("loss, first and last epoch:", f"{losses[0]:.3f} {losses[-1]:.3f}")

# %%
network_accuracy = accuracy(forward(layers, val.images), val.labels)
lesson.measured("validation accuracy with two hidden layers", network_accuracy, least=lesson.pick(small=0.88, full=0.965))
lesson.measured(
    "accuracy that the hidden layers add",
    network_accuracy - regression_accuracy,
    least=lesson.on(mnist=lesson.pick(small=0.01, full=0.03), digits=0.005),
)

# %% [markdown] kind="answer" name="in_place" points=2
# Somebody writes the step as `weight = weight - lr * weight.grad`, without `no_grad`. The first step goes well. Why does the second one
# fail, or learn nothing?
#
# ### BEGIN SOLUTION
# The name `weight` now stands for a new tensor, the result of a computation: `backward` leaves no gradient in it (only the tensors at
# which the record begins get one), so its `.grad` is None. The model, if it holds the old tensor, never sees a change. And the step
# itself is on the record, so that the record of each step hangs on the one before, and memory grows.
# ### END SOLUTION

# %% [markdown]
# ## The same network three times
#
# Now read the file that does all this, `firstlight/models/scratch.py`. It imports `torch` and nothing of `torch.nn`. This is its loop:

# %%
print(inspect.getsource(scratch.fit))
lines = inspect.getsource(scratch).splitlines()
lesson.measured("lines of scratch.py", len(lines), most=200)
lesson.measured("imports of torch.nn in it", sum("import" in line and "nn" in line for line in lines), most=0)

# %% [markdown]
# PyTorch has ready parts for each of your functions. Side by side:
#
# | by hand | ready |
# |---|---|
# | a list of weights and biases, `forward` | `nn.Linear`, `nn.ReLU`, `nn.Sequential` (`firstlight/models/mlp.py`) |
# | `cross_entropy` | `nn.functional.cross_entropy` |
# | `sgd_step` | `torch.optim.SGD(...).step()` |
# | setting `.grad` to None | `optimizer.zero_grad()` |
#
# Ready parts save work; they add nothing. Start both from the same weights, give both the same batches, and compare: once in float64,
# with 16 digits, and once in float32, with 7.


# %%
def by_hand(steps, dtype):
    """Train on raw tensors; return the losses and the parameters."""
    torch.manual_seed(1)
    pairs = [(w.detach().to(dtype).requires_grad_(), b.detach().to(dtype).requires_grad_()) for w, b in ScratchMLP(image_shape, 10).layers]
    tensors = [tensor for pair in pairs for tensor in pair]
    seen = []
    for batch in steps:
        loss = cross_entropy(forward(pairs, train.images[batch].to(dtype)), train.labels[batch])
        loss.backward()
        sgd_step(tensors, lr=0.1)
        seen.append(loss.item())
    return seen, tensors


def with_modules(steps, dtype):
    """Train on torch.nn; return the losses and the parameters."""
    torch.manual_seed(1)
    model = MLP(image_shape, 10).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for batch in steps:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(train.images[batch].to(dtype)), train.labels[batch])
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    return seen, list(model.parameters())


def largest(ones, others):
    """Return the largest difference of two lists of tensors or numbers."""
    return max(
        float(abs(torch.as_tensor(one).detach() - torch.as_tensor(other).detach()).max()) for one, other in zip(ones, others, strict=True)
    )


torch.manual_seed(2)
steps = [batch for _ in range(lesson.on(mnist=2, digits=6)) for batch in torch.randperm(len(rows))[:6_400].split(64)]
apart = {}
for dtype in (torch.float64, torch.float32):
    (hand_losses, hand_weights), (module_losses, module_weights) = by_hand(steps, dtype), with_modules(steps, dtype)
    apart[dtype] = [abs(one - other) for one, other in zip(hand_losses, module_losses, strict=True)]
    if dtype == torch.float64:
        for step in (0, 1, len(steps) - 1):
            print(f"step {step + 1:3d}: by hand {hand_losses[step]:.8f}, with modules {module_losses[step]:.8f}")
        lesson.measured("float64: largest difference of a loss", max(apart[dtype]), most=1e-5)
        lesson.measured("float64: largest difference of a weight at the end", largest(hand_weights, module_weights), most=1e-5)

figure, (axes,) = new_figure(width=7, height=3.6)
for number, (dtype, label) in enumerate(((torch.float64, "float64"), (torch.float32, "float32"))):
    axes.plot(range(1, len(steps) + 1), [max(gap, 1e-18) for gap in apart[dtype]], ".", markersize=4, color=color_of(number), label=label)
axes.set(yscale="log", ylim=(5e-19, 1))
axes.legend(frameon=False)
tidy(axes, x="step", y="difference of the losses", title="By hand against modules (exact agreement is drawn at the bottom)")
lesson.show(figure, "rounding")

# %%
lesson.measured("float32: largest difference of a loss in the first 10 steps", max(apart[torch.float32][:10]), most=1e-5)

# %% [markdown]
# The two programs add the same numbers in another order, so the last digit may differ. In float64 nobody will ever notice. In float32 it
# can grow: where a hidden value is so near to 0 that ReLU lets it pass in one program and not in the other, one image pulls in another
# direction, and from there on the two drift apart. Both are right. When you compare two programs, compare few steps, or compare in
# float64.
#
# ## And the engine
#
# `fl.train` is what the command `firstlight train` calls: it reads a config, trains, and leaves a run folder. The two shipped experiments
# `mnist_scratch` (raw tensors) and `mnist_mlp` (modules) differ in one line, the model. Here both take twenty steps of plain gradient
# descent with a learning rate of 0.1.

# %%
settings = {
    "data": lesson.data,
    "split": {"num_train": 1_000},
    "optim": {"name": "sgd", "lr": 0.1, "momentum": 0.0},
    "schedule": "constant",
    "train": {"epochs": 2, "batch_size": 100, "log_every": 1},
    "device": {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1},
}
folder = tempfile.mkdtemp(prefix="by_hand-", dir=make_dir(Path("runs")))
quiet = Console(quiet=True)
runs = {name: fl.train(name, **settings, name=name, runs_dir=folder, console=quiet) for name in ("mnist_scratch", "mnist_mlp")}
for name, run in runs.items():
    print(f"{name}: step {len(run.steps)}, loss {run.steps[-1]['loss']:.5f}, validation accuracy {run.epochs[-1]['val_accuracy']:.4f}")
of_scratch, of_mlp = ([row["loss"] for row in runs[name].steps] for name in ("mnist_scratch", "mnist_mlp"))
lesson.measured("raw tensors against modules in the engine, largest difference of a loss", largest(of_scratch, of_mlp), most=1e-5)

# %% [markdown]
# The engine does more than our loop: it measures mean and deviation of the training pixels and scales by them, and it shuffles by a seed
# and the number of the epoch. Both can be had by name. So here is your loop once more, on the same images in the same order. It should
# give the engine's numbers.

# %%
config = fl.load_config("mnist_scratch", **settings)
data = load_training_data(config, data_dir_of())
model = fl.build_model(config.model, data.record.image_shape, data.record.num_classes, seed=config.seed)
scaled = data.record.normalize.apply(data.train.images)
mine = []
for epoch in range(config.train.epochs):
    for batch in permutation(len(scaled), config.seed, epoch).split(config.train.batch_size):
        loss = cross_entropy(forward(model.layers, scaled[batch]), data.train.labels[batch])
        loss.backward()
        sgd_step(model.parameters(), config.optim.options["lr"])
        mine.append(loss.item())
lesson.measured("your loop against the engine, largest difference of a loss", largest(mine, of_mlp), most=1e-5)
trained = fl.load_model(runs["mnist_mlp"], which="last")
gap = largest(model.parameters(), trained.parameters())
lesson.measured("your loop against the engine, largest difference of a weight", gap, most=1e-5)
assert count_parameters(model) == num_learned, "the engine trained another network"

figure, (axes,) = new_figure(width=7, height=3.6)
axes.plot(range(1, len(mine) + 1), of_mlp, color=color_of(0), linewidth=4, alpha=0.4, label="the engine, torch.nn")
axes.plot(range(1, len(mine) + 1), mine, color=color_of(1), linewidth=1, label="your loop, raw tensors")
axes.set_xticks(range(0, len(mine) + 1, 5))
axes.legend(frameon=False)
tidy(axes, x="step", y="loss of the batch (nats)", title="One network, trained twice")
lesson.show(figure, "engine")

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/models/scratch.py` is this lesson in one file, `firstlight/models/mlp.py` the same network from ready parts,
# `firstlight/engine/step.py` the four lines of the loop. `firstlight train mnist_scratch` and `firstlight train mnist_linear` train them
# in full, and `firstlight compare RUN RUN` shows the runs side by side.
