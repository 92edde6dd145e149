# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: The training loop, and three ways to break it
#     minutes: 1
#     shows: [B5]
# ---

# %% [markdown]
# # The training loop, and three ways to break it
#
# **You will learn** the four lines in which every network learns, what each of them does, and how a loop looks from outside in which one of
# them is missing. You will find such a fault in other people's programs, and in your own.
#
# **Before:** lesson 3 (modules). **Takes** less than a minute.
#
# **Comes from** the training loop of PyTorch's own introduction; gradient descent on mini-batches is Robbins and Monro (1951), *A
# stochastic approximation method*.

# %%
import math

import torch
from torch import nn

from firstlight.models.mlp import MLP
from firstlight.models.scratch import ScratchMLP, fit
from firstlight.notebooks.lesson import begin
from firstlight.plotting.style import color_of, new_figure, tidy

lesson = begin("training_loop")
train, val = lesson.load(num_train=lesson.pick(small=2_000, full=None))
image_shape = tuple(train.images.shape[1:])
print(len(train.images), "training images of shape", image_shape)

# %% [markdown]
# ## Before anything is learned
#
# The network below has never seen a label. It gives each of ten classes nearly the same probability. The loss is the mean of $-\log p$,
# where $p$ is the probability of the right class.
#
# **Predict before you run on:** what is the loss of a network that gives each of ten classes the probability 0.1?

# %% kind="predict" name="first_loss"
### BEGIN SOLUTION
guess = math.log(10)
### END SOLUTION

# %%
model = MLP(image_shape, 10)
with torch.no_grad():
    first_loss = nn.functional.cross_entropy(model(train.images), train.labels).item()
lesson.reveal(guess, first_loss, "loss before training")
lesson.measured("distance of the first loss from ln 10", abs(first_loss - math.log(10)), most=0.15)

# %% [markdown]
# ## Four lines
#
# Write one epoch of training. For each mini-batch: forget the old gradients, compute the loss, walk back through the network to get the
# gradient of every weight, take one step down. `batches` yields images and their labels.


# %%
def batches(part, batch_size=64, seed=0):
    """Yield images and labels, shuffled by the seed."""
    order = torch.randperm(len(part.labels), generator=torch.Generator().manual_seed(seed))
    for rows in order.split(batch_size):
        yield part.images[rows], part.labels[rows]


# %% kind="exercise" name="one_epoch"
def one_epoch(model, optimizer, part, seed=0):
    """Train on each batch once and return the mean loss over the images."""
    total = 0.0
    for images, labels in batches(part, seed=seed):
        ### BEGIN SOLUTION
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        ### END SOLUTION
        total += loss.item() * len(labels)
    return total / len(part.labels)


# %% kind="check" name="one_epoch" points=2
# firstlight/models/scratch.py has the same network without torch.nn, and `fit` trains it with every step written out: open it beside this
# cell.
few = val.images[:256], val.labels[:256]
torch.manual_seed(1)
yours = MLP(image_shape, 10)
torch.manual_seed(1)
written_out = ScratchMLP(image_shape, 10)
expected = fit(written_out, *few, lr=0.1, batch_size=64, epochs=1, seed=3)[0]
reported = one_epoch(yours, torch.optim.SGD(yours.parameters(), lr=0.1), type(val)(*few), seed=3)
torch.manual_seed(1)
untouched = all(torch.equal(one, other) for one, other in zip(yours.parameters(), MLP(image_shape, 10).parameters(), strict=True))
assert any(weight.grad is not None for weight in yours.parameters()), "no weight has a gradient: nothing walked back through the network"
assert not untouched, "every weight is as it was: there are gradients, but nobody takes a step along them"
apart = max((one - other).abs().max().item() for one, other in zip(yours.parameters(), written_out.parameters(), strict=True))
assert apart < 1e-5, f"the weights end {apart:.2g} away from those of `fit`: is the gradient of the last batch forgotten before the next?"
assert abs(reported - expected) < 1e-5, f"the loss is {reported:.4f}, and should be the mean over all images, {expected:.4f}"
print("one_epoch takes the steps of firstlight.models.scratch.fit, to", f"{apart:.1g}")

# %% [markdown]
# ## Five epochs
#
# The published setting: gradient descent with a learning rate of 0.003 on batches of 64 images. It is slow, and it goes down every time.

# %%
torch.manual_seed(0)
model = MLP(image_shape, 10)
optimizer = torch.optim.SGD(model.parameters(), lr=lesson.on(mnist=0.003, digits=0.05))  # the digits are 40 times fewer
losses = [one_epoch(model, optimizer, train, seed=epoch) for epoch in range(5)]
print("loss by epoch:", " ".join(f"{loss:.3f}" for loss in losses))
assert losses == sorted(losses, reverse=True), "the loss rose in one of the epochs"
lesson.measured("loss of epoch 5 over loss of epoch 1", losses[-1] / losses[0], most=lesson.pick(small=0.999, full=0.6))

# %% [markdown]
# ## Three broken loops
#
# Each of the loops below leaves one of the four lines out. **Predict:** in which of them does the gradient keep growing: "zero_grad",
# "backward" or "step"?

# %% kind="predict" name="which_grows"
### BEGIN SOLUTION
guess = "zero_grad"
### END SOLUTION


# %%
def broken(left_out, epochs=3):
    """Train without one of the lines; return the loss and the norm of the gradient at each step."""
    torch.manual_seed(0)
    model = MLP(image_shape, 10)
    seen = []
    for epoch in range(epochs):
        for images, labels in batches(type(train)(train.images[:1_152], train.labels[:1_152]), seed=epoch):
            if left_out != "zero_grad":
                model.zero_grad()
            wrong_by = nn.functional.cross_entropy(model(images), labels)
            if left_out != "backward":
                wrong_by.backward()
            moves = [(weight, weight.grad) for weight in model.parameters() if weight.grad is not None]
            norm = math.sqrt(sum(gradient.square().sum().item() for _, gradient in moves))
            if left_out != "step":
                with torch.no_grad():
                    for weight, gradient in moves:
                        weight -= 0.05 * gradient  # all that SGD does
            seen.append((wrong_by.item(), norm))
    return seen


loops = {name: broken(name) for name in ("nothing", "zero_grad", "backward", "step")}
figure, (left, right) = new_figure(1, 2, width=11, height=4.2)
for index, (name, seen) in enumerate(loops.items()):
    label = "the whole loop" if name == "nothing" else f"without {name}"
    look = {"color": color_of(index), "linestyle": "--" if name == "step" else "-", "linewidth": 1.8, "label": label}
    left.plot([loss for loss, _ in seen], **look)  # without backward and without step it is the same line
    right.plot([norm for _, norm in seen], **look)
tidy(left, x="step", y="loss of the batch (nats)", title="Two of the loops stand still")
tidy(right, x="step", y="norm of the gradient", title="One has no gradient, in one it piles up")
right.set_yscale("symlog")
left.legend(frameon=False, fontsize=9)
lesson.show(figure, "broken_loops")

# %%
grows = max(loops, key=lambda name: loops[name][-1][1])
lesson.reveal(guess, grows, "the gradient keeps growing without")
means = {name: sum(loss for loss, _ in seen[-10:]) / 10 for name, seen in loops.items()}
norms = {name: max(norm for _, norm in seen) for name, seen in loops.items()}
lesson.measured("largest gradient without zero_grad over that of the whole loop", norms["zero_grad"] / norms["nothing"], least=3)
lesson.measured("largest gradient without backward", norms["backward"], most=0)
lesson.measured("last loss without backward", means["backward"], least=2.2)
lesson.measured("last loss without step", means["step"], least=2.2)
lesson.measured("last loss of the whole loop", means["nothing"], most=1.6)

# %% [markdown] kind="answer" name="how_to_tell" points=2
# Someone shows you a training whose loss stands at 2.30 from the first step to the last. Which two of the three faults may it be, and which
# number would you print to tell them apart?
#
# ### BEGIN SOLUTION
# Without `backward` and without `step` the weights never change, so the loss stays where it was. Print the norm of the gradient: without
# `backward` there is none (None, or 0), without `step` it is an ordinary number that leads nowhere.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/engine/step.py` is the same four lines, with what a real training adds: the loss and its gradient in one go, clipping, the
# schedule's learning rate, no waiting for the device. `firstlight/engine/loop.py` calls it once a batch. `firstlight inspect health RUN`
# looks for the faults of this lesson, and for ten others, in any run.
