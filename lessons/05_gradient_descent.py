# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: All images, one image, or a few
#     minutes: 3
#     shows: [E1, E2]
# ---

# %% [markdown]
# # All images, one image, or a few
#
# **You will learn** what a generator is and how one feeds a training, why nearly everybody trains on batches of 32 to 512 images, what
# each batch size costs in memory and time, and how noisy a gradient is.
#
# **Before:** lesson 4 (the training loop). **Takes** three minutes.
#
# **Comes from** gradient descent (Cauchy, 1847), one sample at a time (Robbins and Monro, 1951), and Bottou, Curtis and Nocedal (2018),
# *Optimization methods for large-scale machine learning*, which explains what lies between.

# %%
import itertools
import math
import time
import types

import torch

from firstlight.models.scratch import ScratchMLP, cross_entropy, sgd_step
from firstlight.notebooks.lesson import begin
from firstlight.plotting.style import color_of, new_figure, set_title, tidy

lesson = begin("gradient_descent")
num = lesson.on(mnist=lesson.pick(small=600, full=5_000), digits=lesson.pick(small=600, full=1_000))
train, val = lesson.load(num_train=num)
image_shape = tuple(train.images.shape[1:])
print(num, "training images")

# %% [markdown]
# ## A function that gives one thing at a time
#
# A function with `yield` in it is a **generator**. Calling it runs nothing. `next` runs it up to the next `yield`, gets the value, and
# leaves the function standing there with all its variables. A `for` loop calls `next` until there is no more.


# %%
def countdown(start):
    while start > 0:
        yield start
        start -= 1


numbers = countdown(2)
print(type(numbers).__name__, next(numbers), next(numbers))

# %% [markdown]
# **Predict:** both values are used up. What does one more `next(numbers)` raise? Write the name of the exception.

# %% kind="predict" name="used_up"
### BEGIN SOLUTION
guess = "StopIteration"
### END SOLUTION

# %%
try:
    raised = str(next(numbers))
except Exception as error:
    raised = type(error).__name__
lesson.reveal(guess, raised, "the third next raises")
print("a for loop takes that as the end:", list(countdown(3)))

# %% [markdown]
# ## Mini-batches
#
# Write the generator that training needs. It yields indices, as int64 tensors, in an order that the seed decides
# (`torch.randperm(num, generator=torch.Generator().manual_seed(seed))`); each image comes exactly once; the last batch may be smaller.


# %% kind="exercise" name="mini_batches"
def mini_batches(num, batch_size, seed):
    """Yield the indices 0..num-1 in the order of the seed, batch_size at a time; the last batch holds the rest."""
    ### BEGIN SOLUTION
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    for start in range(0, num, batch_size):
        yield order[start : start + batch_size]
    ### END SOLUTION


# %% kind="check" name="mini_batches" points=2
made = mini_batches(10, 4, seed=0)
assert isinstance(made, types.GeneratorType), (
    f"mini_batches returned {type(made).__name__}: use yield, so that it gives one batch at a time"
)
sizes = [len(batch) for batch in mini_batches(10, 4, seed=0)]
assert sizes == [4, 4, 2], f"ten images in batches of four gave batches of {sizes}; they should be [4, 4, 2]"
everything = torch.cat(list(mini_batches(1_000, 64, seed=0)))
assert everything.dtype == torch.int64, f"the indices are {everything.dtype}; an index is int64"
assert torch.equal(everything.sort().values, torch.arange(1_000)), "some image comes twice, or not at all"
assert not torch.equal(everything, torch.arange(1_000)), "the images come in the order of the file: they have to be shuffled"
assert torch.equal(everything, torch.cat(list(mini_batches(1_000, 64, seed=0)))), "the same seed gave another order"
assert not torch.equal(everything, torch.cat(list(mini_batches(1_000, 64, seed=1)))), "another seed gave the same order"
assert [len(batch) for batch in mini_batches(8, 4, seed=0)] == [4, 4], "eight images in batches of four are two batches, none of them empty"
print("an epoch of", num, "images in batches of 64 has", sum(1 for _ in mini_batches(num, 64, seed=0)), "batches")

# %% [markdown]
# ## Batches without end
#
# Some trainings count steps and not epochs. They want batches for ever, all of the same size. Where the images of one epoch run out in
# the middle of a batch, the batch **wraps around**: it is filled up with the first images of the next epoch, which has an order of its
# own. No image is left out, and none comes twice before all others have come.
#
# Take the order of epoch 0, 1, 2, ... from the seeds `seed`, `seed + 1`, `seed + 2`, ... and remember what is left over.


# %% kind="exercise" name="endless_batches"
def endless_batches(num, batch_size, seed):
    """Yield batches of exactly batch_size indices without end; epoch after epoch, each in the order of its own seed."""
    ### BEGIN SOLUTION
    waiting = torch.empty(0, dtype=torch.int64)
    for epoch in itertools.count():
        waiting = torch.cat((waiting, *mini_batches(num, num, seed + epoch)))
        while len(waiting) >= batch_size:
            yield waiting[:batch_size]
            waiting = waiting[batch_size:]
    ### END SOLUTION


# %% kind="check" name="endless_batches" points=3
batches = list(itertools.islice(endless_batches(10, 4, seed=5), 15))
assert len(batches) == 15, f"it ended after {len(batches)} batches; it should go on for ever"
assert {len(batch) for batch in batches} == {4}, (
    f"batches have {sorted({len(batch) for batch in batches})} images: the one at the end wraps around"
)
stream = torch.cat(batches)
for epoch in range(6):
    part = stream[10 * epoch : 10 * epoch + 10]
    assert len(part.unique()) == 10, f"in epoch {epoch} an image comes twice: the rest of one epoch comes before the next one"
assert not torch.equal(stream[:10], stream[10:20]), "the second epoch has the order of the first: each epoch has a seed of its own"
first_epoch = torch.cat(list(mini_batches(10, 10, seed=5)))
assert torch.equal(stream[:10], first_epoch), "the first epoch should have the order of mini_batches with the same seed"
assert torch.equal(torch.cat(list(itertools.islice(endless_batches(10, 4, seed=5), 15))), stream), "the same seed gave other batches"
wide = next(endless_batches(3, 8, seed=0))
assert len(wide) == 8, f"a batch of 8 of 3 images has {len(wide)}: one batch may hold more than an epoch"
print("60 images in 15 batches of 4, six whole epochs:", [batch.tolist() for batch in batches[:4]], "...")

# %% [markdown]
# ## How noisy is a gradient?
#
# The gradient over all images says where the cost falls. The gradient over a batch is an estimate of it, as an opinion poll is of an
# election. Draw many batches of each size and measure how far the estimate is from the truth, relative to its length.
#
# **Predict:** a batch that is four times as large: by which factor is its error smaller?

# %% kind="predict" name="noise"
### BEGIN SOLUTION
guess = 2.0
### END SOLUTION


# %%
def gradient_of(model, rows):
    """Return the gradient of the cost over these images as one row."""
    loss = cross_entropy(model(train.images[rows]), train.labels[rows])
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(model.parameters()))])


torch.manual_seed(0)
model = ScratchMLP(image_shape, 10, hidden=(32,))
true_gradient = gradient_of(model, torch.arange(num))
draws = lesson.pick(small=40, full=100)
noise = {}
for size in (1, 4, 16, 64, 256):
    estimates = (gradient_of(model, torch.randint(num, (size,))) for _ in range(draws))
    noise[size] = (
        math.sqrt(sum((estimate - true_gradient).square().sum().item() for estimate in estimates) / draws) / true_gradient.norm().item()
    )
figure, (axes,) = new_figure(width=6, height=3.6)
axes.plot(list(noise), list(noise.values()), marker="o", color=color_of(0), label="measured")
axes.plot(list(noise), [noise[1] / math.sqrt(size) for size in noise], color="#888888", linestyle=":", label="one over the square root")
axes.set(xscale="log", yscale="log")
axes.set_xticks(list(noise), [str(size) for size in noise])
axes.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
axes.minorticks_off()
axes.legend(frameon=False)
tidy(axes, x="images in the batch", y="error of the gradient\n(over its length)", title="Four times the images, half the error")
lesson.show(figure, "noise")

# %%
factor = (noise[1] / noise[256]) ** (1 / 4)  # 256 is 4 to the 4
lesson.reveal(guess, factor, "factor for four times the images")
lesson.measured("error of the gradient of one image, over the length of the true one", noise[1], least=1)
lesson.measured("factor by which the error falls for four times the images", factor, least=1.8, most=2.2)

# %% [markdown]
# So the gradient of a single image is mostly noise, and the way to a quiet one is dear: half the error costs four times the work. Is a
# quiet gradient worth that?
#
# ## One task, five batch sizes
#
# The same small network, the same images, the same weights at the start. Only the batch size differs: 1 image, 32, 128, 512 or all of
# them. A noisy gradient asks for smaller steps, so each size may choose the learning rate with which it gets lowest, out of the same
# list.


# %%
def cost(model):
    """Return the mean loss over all training images."""
    with torch.no_grad():
        return cross_entropy(model(train.images), train.labels).item()


EARLY = (1, 2, 5, 10, 20)


def descend(batch_size, lr, epochs, points=10):
    """Train, and return (epochs so far, updates so far, seconds of training so far, cost), early and at `points` places an epoch."""
    torch.manual_seed(0)
    model = ScratchMLP(image_shape, 10, hidden=(32,))
    seen, updates, spent = 0, 0, 0.0
    found = [(0.0, 0, 0.0, cost(model))]
    for epoch in range(epochs):
        for rows in mini_batches(num, batch_size, seed=epoch):
            begun = time.perf_counter()
            cross_entropy(model(train.images[rows]), train.labels[rows]).backward()
            sgd_step(model.parameters(), lr)
            spent += time.perf_counter() - begun
            seen, updates = seen + len(rows), updates + 1
            if updates in EARLY or points * seen // num > points * (seen - len(rows)) // num:
                found.append((seen / num, updates, spent, cost(model)))
    return found


epochs = lesson.pick(small=3, full=5)
full_rates = lesson.on(mnist=(0.003, 0.01, 0.03, 0.1, 0.3, 1.0), digits=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0))
rates = lesson.pick(small=(0.03, 0.3), full=full_rates)
budgets = {1: epochs, 32: epochs, 128: epochs, 512: epochs, num: 10 * epochs}
curves, chosen = {}, {}
for size, budget in budgets.items():
    tried = {lr: descend(size, lr, budget) for lr in rates}
    chosen[size] = min(rates, key=lambda lr: tried[lr][-1][3] if math.isfinite(tried[lr][-1][3]) else math.inf)
    curves[size] = tried[chosen[size]]
names = {size: "all images" if size == num else f"{size} image{'s' if size > 1 else ''}" for size in budgets}
after = {size: next(point[3] for point in curve if point[0] >= epochs) for size, curve in curves.items()}
for size in budgets:
    print(f"{names[size]:>10s} a batch: learning rate {chosen[size]}, cost after {epochs} epochs {after[size]:.3f}")

# %%
figure, (left, right) = new_figure(1, 2, width=11, height=4)
for number, (size, curve) in enumerate(curves.items()):
    left.plot([point[0] for point in curve], [point[3] for point in curve], color=color_of(number), label=names[size])
    right.plot([point[1] for point in curve[1:]], [point[3] for point in curve[1:]], color=color_of(number), label=names[size])
left.set(xlim=(0, epochs), yscale="log")
right.set(xscale="log", yscale="log")
tidy(left, x="epochs (times that each image was used)", y="cost over all training images (nats)", title="For the same number of images")
tidy(right, x="updates of the weights", y="cost over all training images (nats)", title="For the same number of updates")
right.legend(frameon=False, title="images a batch", fontsize=9)
set_title(figure, "Gradient descent by batch size, each at its best learning rate")
lesson.show(figure, "costs")

# %%
lesson.measured("cost before training", curves[num][0][3], least=2.2)
lesson.measured("cost with all images at once", after[num], least=1.0)
lesson.measured(
    "cost with 32 images a batch",
    after[32],
    most=lesson.on(mnist=lesson.pick(small=0.9, full=0.4), digits=lesson.pick(small=1.6, full=0.9)),
)
lesson.measured("cost of all at once over that of 32, for the same images", after[num] / after[32], least=1.5)
lesson.measured("cost of 32 over that of one image, for the same images", after[32] / after[1], least=1.0)
after_20 = {size: next(point[3] for point in curve if point[1] == 20) for size, curve in curves.items() if size in (1, num)}
lesson.measured("cost of one image a batch over that of all, for 20 updates", after_20[1] / after_20[num], least=1.05)
lesson.measured("best learning rate with all images over that with one", chosen[num] / chosen[1], least=3)

# %% [markdown]
# For the same number of **images**, the smaller the batch, the lower the cost: small batches have taken hundreds or thousands of steps
# where the whole set has taken one each epoch. For the same number of **updates** the order turns round: there a quiet gradient is
# better, and it bears a larger step.
#
# So one image at a time wins? Only where images are what you have to pay for. What you pay for is time and memory.
#
# ## What a batch takes: memory
#
# For the way back, autograd keeps what each layer was given. PyTorch lets us look at every tensor that is kept (`saved_tensors_hooks`).
# Count the bytes, leaving out the weights, which are there anyway.


# %%
def bytes_kept(batch_size):
    """Return the bytes that one batch keeps for its backward pass, besides the parameters."""
    model = ScratchMLP(image_shape, 10, hidden=(32,))
    images, labels = train.images[:batch_size].clone(), train.labels[:batch_size].clone()
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def note(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = cross_entropy(model(images), labels)
    assert loss.requires_grad
    return sum(kept.values())


memory = {size: bytes_kept(size) for size in budgets}
for size, kept in memory.items():
    print(f"{names[size]:>10s} a batch: {kept / 1e3:10.1f} kB kept for the way back, {kept / size / 1e3:.2f} kB an image")

# %% [markdown]
# **Predict:** 512 images a batch instead of 32. How many times the memory?

# %% kind="predict" name="memory"
### BEGIN SOLUTION
guess = 512 / 32
### END SOLUTION

# %%
lesson.reveal(guess, memory[512] / memory[32], "memory of 512 images over that of 32")
lesson.measured("memory of 512 images over that of 32", memory[512] / memory[32], least=15, most=17)

# %% [markdown]
# ## What a batch takes: time
#
# The times below are of this machine, and differ from run to run. What does not differ: a step on one image takes nearly as long as a
# step on 32, because most of it is the calls and not the numbers. So an epoch of single images is slow, and in the time in which batches
# of 32 go through all of their epochs, single images have hardly begun.

# %% varies=true
seconds = {size: curve[-1][2] / budgets[size] for size, curve in curves.items()}
for size, spent in seconds.items():
    steps = math.ceil(num / size)
    print(
        f"{names[size]:>10s} a batch: {spent:8.4f} s an epoch, {spent / steps * 1e3:8.3f} ms a step, {num / spent:10,.0f} images a second"
    )
lesson.measured("time of an epoch, one image a batch over 32", seconds[1] / seconds[32], least=2)
in_time = [point[3] for point in curves[1] if point[2] <= curves[32][-1][2]][-1]
lesson.measured("cost of one image a batch over that of 32, for the same time", in_time / after[32], least=1)
figure, (axes,) = new_figure(width=7, height=3.8)
for number, (size, curve) in enumerate(curves.items()):
    axes.plot([point[2] for point in curve[1:]], [point[3] for point in curve[1:]], color=color_of(number), label=names[size])
axes.set(xscale="log", yscale="log")
axes.legend(frameon=False, title="images a batch", fontsize=9)
tidy(axes, x="seconds of training on this machine", y="cost over all training images (nats)", title="For the same time")
lesson.show(figure, "time")

# %% [markdown] kind="answer" name="in_between" points=2
# Give two reasons against training on one image at a time and two against training on all of them at once. Each reason should point to a
# picture or a number above.
#
# ### BEGIN SOLUTION
# One at a time: the gradient is mostly noise (its error is larger than itself), so only small steps are safe; and an epoch takes many
# times as long, since each step costs nearly as much as one on many images. All at once: there is one update an epoch, so the cost after
# the same number of images is far higher; and memory grows with the batch, while the gradient gets better only with its square root.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/data/loader.py` is such a generator: the order is a function of the seed and the epoch, and `batches(epoch, start)` begins
# anywhere in it, so that a run can be resumed in the middle of an epoch. `firstlight profile throughput CONFIG` finds the batch size from
# which on this machine gains no more, and `firstlight profile memory CONFIG` what a batch takes.
