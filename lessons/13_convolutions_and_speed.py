# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Convolutions, and how fast a network learns
#     minutes: 4
#     shows: [A1, A2, D17, F9]
# ---

# %% [markdown]
# # Convolutions, and how fast a network learns
#
# **You will learn** what a convolution and a pooling layer compute, how many parameters they need and how much arithmetic, why they do
# better on images than layers that connect everything with everything, and why a batch of 64 images takes far less time than 64 batches of
# one.
#
# **Before:** lesson 4 (the training loop). **Takes** about four minutes, most of it for the colour images at the end.
#
# **Comes from** LeCun et al. (1998), *Gradient-based learning applied to document recognition*; the network of five layers is that of
# Nakkiran et al. (2019), *Deep double descent*.

# %%
import itertools
import math
import time

import torch
from torch import nn
from torch.nn import functional as F

import firstlight as fl
from firstlight.engine.memory import keep_freed_memory
from firstlight.errors import DataError
from firstlight.models.cnn5 import CNN5
from firstlight.models.flops import flops_per_image
from firstlight.models.layers import count_parameters
from firstlight.models.mlp import MLP
from firstlight.models.small_cnn import SmallCNN
from firstlight.notebooks.lesson import begin
from firstlight.plotting.curves import plot_curves
from firstlight.plotting.finders import plot_batch_sizes
from firstlight.plotting.images import plot_images
from firstlight.plotting.style import color_of, new_figure, tidy

lesson = begin("convolutions")
val_fraction = lesson.on(mnist=lesson.pick(small=0.03, full=1 / 6), digits=1 / 6)
train, val = lesson.load(num_train=lesson.pick(small=1_000, full=None), val_fraction=val_fraction)
image_shape = tuple(train.images.shape[1:])
print(len(train.images), "training images of shape", image_shape)

# %% [markdown]
# ## A convolution by hand
#
# A *filter* is a small image, here 3 x 3 pixels. Put it on the picture at every place, multiply what lies on top of each other, add up:
# that is one pixel of the result. With several input channels the filter has as many, and the sum goes over them, too. Each filter makes
# one channel of the output. A picture of height $H$ has $H - 3 + 1$ places for a filter of height 3.
#
# Write it. A loop over the 3 x 3 places *in the filter* is short and fast: for each of them, a shifted window of all pictures is multiplied
# at once.


# %% kind="exercise" name="convolve"
def convolve(images, filters):
    """Return float [N, F, H - k + 1, W - k + 1] of images [N, C, H, W] and filters [F, C, k, k]."""
    size = filters.shape[2]
    height, width = images.shape[2] - size + 1, images.shape[3] - size + 1
    result = torch.zeros(len(images), len(filters), height, width)
    ### BEGIN SOLUTION
    for down in range(size):
        for right in range(size):
            window = images[:, :, down : down + height, right : right + width]
            result += torch.einsum("nchw,fc->nfhw", window, filters[:, :, down, right])
    ### END SOLUTION
    return result


# %% kind="check" name="convolve" points=2
torch.manual_seed(0)
colours, some_filters = torch.randn(2, 3, 9, 7), torch.randn(4, 3, 3, 3)
found, expected = convolve(colours, some_filters), F.conv2d(colours, some_filters)
assert found.shape == expected.shape, f"the shape is {list(found.shape)}, and should be {list(expected.shape)}"
assert found.abs().max() > 0, "all is zero: nothing was added to the result"
turned = F.conv2d(colours, some_filters.flip(2, 3))
assert (found - turned).abs().max() > 1e-3, "the filter is turned round: networks do not do that, although mathematics does"
first_channel = F.conv2d(colours[:, :1], some_filters[:, :1])
assert (found - first_channel).abs().max() > 1e-3, "only the first input channel counts: the sum goes over all of them"
assert (found - expected).abs().max() < 1e-4, "some pixels differ from F.conv2d: is each window shifted by its place in the filter?"
print("equals F.conv2d to", f"{(found - expected).abs().max():.0e}")

# %% [markdown]
# Two filters that people use: each answers where the picture grows brighter to the right, or downwards (Sobel and Feldman 1968). A network
# finds such filters by itself.

# %%
across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
edges = convolve(val.images[:4], torch.stack((across, across.T))[:, None])
shades = [(edges[n, f] / edges.abs().max() * 127 + 128).byte().numpy() for n in range(4) for f in range(2)]
pictures = [picture for n in range(4) for picture in ((val.images[n, 0] * 255).byte().numpy(), *shades[2 * n : 2 * n + 2])]
titles = ["image", "to the right", "downwards"] * 4
figure = plot_images(pictures, titles, columns=6, title="What two filters see: where the image grows brighter (grey is nothing)")
lesson.show(figure, "edges")

# %% [markdown]
# ## Pooling
#
# A *max pooling* layer keeps the largest of each 2 x 2 pixels: a quarter of the values, and it matters less where exactly something was
# found. Without a loop: give the picture six dimensions.


# %% kind="exercise" name="max_pool"
def max_pool(images):
    """Return float [N, C, H / 2, W / 2], the largest of each 2 x 2 pixels; H and W are even."""
    ### BEGIN SOLUTION
    number, channels, height, width = images.shape
    return images.reshape(number, channels, height // 2, 2, width // 2, 2).amax(dim=(3, 5))
    ### END SOLUTION


# %% kind="check" name="max_pool" points=1
tall = torch.randn(3, 2, 8, 6)
found = max_pool(tall)
assert found.shape == (3, 2, 4, 3), f"the shape is {list(found.shape)}, and should be [3, 2, 4, 3]: height before width"
assert not torch.allclose(found, F.avg_pool2d(tall, 2)), "that is the mean of the four, and not the largest"
assert torch.equal(found, F.max_pool2d(tall, 2)), "the values differ from F.max_pool2d: the four must be neighbours, two above two"
print("equals F.max_pool2d")

# %% [markdown]
# ## Count
#
# A filter is used at every place of the picture, so the number of its parameters has nothing to do with the size of the picture. A layer of
# $F$ filters of 3 x 3 pixels on $C$ channels has $9 C F$ weights and $F$ biases. **Predict:** how many parameters has `nn.Conv2d(3, 64,
# 3)`?

# %% kind="predict" name="first_layer"
### BEGIN SOLUTION
guess = 9 * 3 * 64 + 64
### END SOLUTION

# %%
lesson.reveal(guess, sum(weight.numel() for weight in nn.Conv2d(3, 64, 3).parameters()), "parameters of nn.Conv2d(3, 64, 3)")

# %% [markdown]
# The network of this course (`firstlight/models/cnn5.py`) has four such layers with `width`, 2, 4 and 8 times `width` filters, the first on
# 3 colours. Behind each stands batch normalisation, with a scale and a bias for each channel. At the end one linear layer makes 10 logits
# of the last channels. Count it by formula.


# %% kind="exercise" name="cnn5_parameters"
def cnn5_parameters(width, num_classes=10):
    """Return the number of parameters of the network described above."""
    ### BEGIN SOLUTION
    channels = [3, width, 2 * width, 4 * width, 8 * width]
    blocks = sum(9 * inputs * outputs + outputs + 2 * outputs for inputs, outputs in itertools.pairwise(channels))
    return blocks + channels[-1] * num_classes + num_classes
    ### END SOLUTION


# %% kind="check" name="cnn5_parameters" points=1
for width in (4, 10):
    built, plain = (count_parameters(CNN5((3, 32, 32), 10, width=width, norm=norm)) for norm in (True, False))
    found = cnn5_parameters(width)
    assert found != plain, f"{found:,} at width {width}: batch normalisation has two parameters a channel"
    assert found not in (built - 15 * width, built - 10, built - 15 * width - 10), f"{found:,} at width {width}: biases count, too"
    assert found != built + 30 * width, f"{found:,} at width {width}: running means and variances are not trained"
    assert found == built, f"{found:,} at width {width}, and the network has {built:,}"
assert cnn5_parameters(64, 200) == count_parameters(CNN5((3, 32, 32), 200)), "the last layer depends on the number of classes"
print("the formula holds at widths 4 and 10")

# %%
lesson.measured("parameters of the network at width 64", cnn5_parameters(64), least=1_558_026, most=1_558_026)
lesson.measured(
    "the same without batch normalisation", count_parameters(CNN5((3, 32, 32), 10, norm=False)), least=1_556_106, most=1_556_106
)
lesson.measured("steps an epoch, 50,000 images in batches of 128", math.ceil(50_000 / 128), least=391, most=391)

# %% [markdown]
# ## Few parameters, much arithmetic
#
# Build two networks with about equally many parameters: a small convolutional one, and one that connects all pixels with all hidden units.
# A convolution uses each weight at every place of the picture. **Predict:** how many times the multiplications of the other does it make on
# one image?

# %% kind="predict" name="arithmetic"
### BEGIN SOLUTION
guess = lesson.on(mnist=80, digits=6.5)
### END SOLUTION

# %%
hidden = lesson.on(mnist=30, digits=320)
networks = {"convolutional": SmallCNN(image_shape, 10, widths=(16, 32, 64)), "connected": MLP(image_shape, 10, hidden=(hidden,))}
sizes = {name: count_parameters(network) for name, network in networks.items()}
flops = {name: flops_per_image(network, image_shape) for name, network in networks.items()}
for name in networks:
    print(f"{name:<14}{sizes[name]:>8,} parameters{flops[name]:>12,} floating-point operations an image")
lesson.reveal(guess, flops["convolutional"] / flops["connected"], "operations of the convolutional over the connected network")
lesson.measured("parameters of the one over the other", sizes["convolutional"] / sizes["connected"], least=0.97, most=1.03)
lesson.measured("operations of the one over the other", flops["convolutional"] / flops["connected"], least=3)

# %% [markdown]
# ## Which learns better?
#
# The same images, optimizer, learning rate and number of epochs for both.

# %%
shared = {
    "data": lesson.data,
    "split": {"val_fraction": val_fraction, "num_train": lesson.on(mnist=lesson.pick(small=1_500, full=12_000), digits=None)},
    "optim": {"name": "adamw", "lr": 3e-3},
    "schedule": "one_cycle",
    "train": {"epochs": lesson.pick(small=lesson.on(mnist=3, digits=6), full=lesson.on(mnist=5, digits=15)), "batch_size": 64},
}
runs = {
    "convolutional": lesson.train("convolutional", "mnist_cnn", model={"name": "small_cnn", "widths": [16, 32, 64]}, **shared),
    "connected": lesson.train("connected", "mnist_cnn", model={"name": "mlp", "hidden": [hidden]}, **shared),
}
lesson.show(plot_curves({name: run.epochs for name, run in runs.items()}), "curves")
accuracy = {name: run.summary["val_accuracy"] for name, run in runs.items()}
for name, value in accuracy.items():
    lesson.measured(f"validation accuracy, {name}", value, least=0.8)
errors = {name: 1 - value for name, value in accuracy.items()}
lesson.measured(
    "errors of the convolutional network over those of the other",
    errors["convolutional"] / errors["connected"],
    most=lesson.pick(small=0.95, full=0.8),
)

# %% [markdown]
# Why? The connected network knows nothing of neighbours: if one shuffled all pixels in the same way, it would learn as well. A convolution
# looks for the same thing at every place. So move all validation images to the right, and ask both again. **Predict:** at which distance in
# pixels does the connected network fall below one half?

# %% kind="predict" name="moved"
### BEGIN SOLUTION
guess = lesson.on(mnist=3, digits=1)
### END SOLUTION


# %%
def moved_right(images, pixels):
    """Return images whose content is moved to the right; what leaves the picture is lost, black comes in."""
    return F.pad(images, (pixels, 0))[..., : images.shape[3]]


def accuracy_of(run, images):
    model, (mean, std) = fl.load_model(run), (run.info["data"]["normalize"][name][0] for name in ("mean", "std"))
    with torch.no_grad():
        logits = torch.cat([model((some - mean) / std) for some in images.split(500)])
    return (logits.argmax(1) == val.labels[: len(images)]).float().mean().item()


some_val = val.images[: lesson.pick(small=500, full=3_000)]
distances = list(range(lesson.on(mnist=lesson.pick(small=6, full=9), digits=4)))
moved = {name: [accuracy_of(run, moved_right(some_val, pixels)) for pixels in distances] for name, run in runs.items()}
figure, (axes,) = new_figure(width=7.5, height=3.8)
for number, (name, values) in enumerate(moved.items()):
    axes.plot(distances, values, marker="o", color=color_of(number), label=name)
axes.set_xticks(distances)
axes.set_ylim(0, 1.04)
axes.legend(frameon=False)
tidy(axes, x="moved to the right (pixels)", y="accuracy", title="Validation images that were moved")
lesson.show(figure, "moved")
lost = next((pixels for pixels, value in zip(distances, moved["connected"], strict=True) if value < 0.5), distances[-1])
lesson.reveal(guess, lost, "pixels at which the connected network is wrong on half of the images")
apart = moved["convolutional"][lost] - moved["connected"][lost]
lesson.measured("accuracy of the convolutional less the connected network, there", apart, least=0.15)

# %% [markdown] kind="answer" name="why_shared" points=2
# Both networks have as many parameters and were trained on the same images. Name two things that the convolutional one was given by its
# makers, and did not have to learn.
#
# ### BEGIN SOLUTION
# First, that what lies close together belongs together: a filter sees neighbours only. Second, that a stroke is the same thing wherever it
# stands: one filter serves all places, and pooling forgets the exact one. The connected network must learn each stroke at each place from
# images that have it there, and no training digit stands far from the middle.
# ### END SOLUTION

# %% [markdown]
# ## Speed: why batches?
#
# One step of training costs something that does not depend on the number of images (Python, calling each layer, the optimizer's step) and
# something for each image. Let that be $a$ and $b$ seconds: a step on $B$ images takes $a + b B$, and
#
# $$\text{speed} = \frac{B}{a + b B}\ \text{images/s}$$
#
# At small $B$ it grows with $B$; at large $B$ it stands at $1 / b$ (or falls again, where a batch no longer fits into the cache of the
# processor). The *knee* is the smallest batch with 90 % of the best speed.
#
# Given measured speeds, find the knee.


# %% kind="exercise" name="knee"
def knee(speeds):
    """Return the smallest batch size with at least 90 % of the best speed. speeds: dict from batch size to images/s."""
    ### BEGIN SOLUTION
    best = max(speeds.values())
    return min(size for size, speed in speeds.items() if speed >= 0.9 * best)
    ### END SOLUTION


# %% kind="check" name="knee" points=1
model = {size: size / (1e-3 + 1e-4 * size) for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)}
assert knee(model) != 512, "512 is the fastest: the knee is the smallest that is nearly as fast"
assert knee(model) == 128, f"{knee(model)}: at a = 1 ms and b = 0.1 ms, batches of 128 are the first with 90 % of the best of these speeds"
assert knee({64: 900.0, 8: 1000.0, 1: 100.0}) == 8, "the sizes need not be sorted, and the best may stand in the middle"
print("with a = 1 ms and b = 0.1 ms the knee is at 128")

# %% [markdown]
# Now measure: real steps of the convolutional network (forward, backward, step), at batches of 1, 2, 4, ... **Predict:** how many times as
# many images a second does it learn from at the knee as at batch 1?

# %% kind="predict" name="gain"
### BEGIN SOLUTION
guess = lesson.on(mnist=4, digits=35)
### END SOLUTION

# %% varies=true
torch.manual_seed(0)
network = SmallCNN(image_shape, 10, widths=(16, 32, 64))
optimizer = torch.optim.SGD(network.parameters(), lr=0.01)


def seconds_a_step(batch_size, rounds):
    """Return the shortest time of a step on random images of the data's shape: other programs only ever add to it."""
    images, labels = torch.rand(batch_size, *image_shape), torch.randint(10, (batch_size,))
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        taken.append(time.perf_counter() - began)
    return min(taken)


with keep_freed_memory():  # as the engine does: what one step frees is there for the next
    seconds = {2**power: seconds_a_step(2**power, lesson.pick(small=5, full=20)) for power in range(lesson.pick(small=8, full=11))}
speeds = {size: size / value for size, value in seconds.items()}
for size, speed in speeds.items():
    print(f"batch {size:>5,}:{1000 * seconds[size]:>9.2f} ms a step{speed:>9,.0f} images/s")
found = knee(speeds)
lesson.reveal(guess, speeds[found] / speeds[1], "speed at the knee over speed at batch 1")
lesson.show(
    plot_batch_sizes(list(speeds.items()), failed=[], title=f"Training speed: 90 % of the best is reached at {found}"), "throughput"
)
lesson.measured("best speed over the speed at batch 1", max(speeds.values()) / speeds[1], least=1.2)

# %% [markdown]
# `firstlight profile throughput mnist_cnn` does this with the training's own loop, each size in a process of its own, so that running out
# of memory is a result and not the end; and it says what binds each size: waiting for data, overhead, memory or arithmetic.

# %% [markdown] kind="answer" name="why_knee" points=2
# Behind the knee a larger batch is hardly faster. Why may it be worse for learning, at the same number of epochs?
#
# ### BEGIN SOLUTION
# Behind the knee the time goes into the images themselves, which a larger batch does not spare. But an epoch then has fewer steps: with
# batches twice as large, half as many steps are taken along gradients that are only a little less noisy. Unless the learning rate is
# raised, the weights travel less far in the same time.
# ### END SOLUTION

# %% [markdown]
# ## Colour images
#
# The network of five layers on CIFAR-10, 32 x 32 pixels in colour. As published it is trained by plain gradient descent with learning rate
# 0.1 on batches of 128 pixels in [0, 1], without augmentation; at width 64, in 20 epochs on all 50,000 images, the course's code reaches
# 0.857 of the test images. That takes minutes on a GPU and hours here. So the cell below takes a quarter of the width, a fifth of the
# images, 6 epochs, and an optimizer that gets further in so few steps. In the quick walk, and where the images are not in the data folder,
# it says so and does nothing.


# %%
def has_cifar():
    try:
        return len(fl.load_data("cifar10")) == 50_000
    except DataError:
        return False


if lesson.small:
    print("the quick walk leaves CIFAR-10 out")
elif not has_cifar():
    print("CIFAR-10 is not in the data folder: `firstlight data fetch cifar10` brings it, and the cell can be run again")
else:
    print(fl.load_data("cifar10").source)
    short = {"train": {"epochs": 6, "batch_size": 128}, "split": {"num_train": 10_000, "val_fraction": 0.1}}
    short |= {"optim": {"name": "adamw", "lr": 3e-3}, "schedule": "one_cycle", "model": {"name": "cnn5", "width": 16}}
    colour = lesson.train("colour", "cifar10_cnn5", **short)
    lesson.show(plot_curves({"cnn5, width 16": colour.epochs}), "colour")
    assert colour.info["network"]["num_parameters"] == cnn5_parameters(16)
    lesson.measured("best validation accuracy on colour images (chance: 0.1)", colour.summary["val_accuracy"], least=0.4)

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/models/small_cnn.py` and `cnn5.py` are the networks; `firstlight/models/convolution.py` calls the fastest kernel for a shape.
#
# - `firstlight profile throughput EXPERIMENT` measures batch 1, 2, 4, ... until memory ends; `firstlight profile summary EXPERIMENT`
#   counts.
# - `firstlight train cifar10_cnn5` is the course's experiment; `model.norm=false optim.lr=0.01` takes batch normalisation out.
# - `firstlight train cifar10_fast_94` is a recipe of today's speed records (Jordan 2024); docs/speed.md says what was measured.
