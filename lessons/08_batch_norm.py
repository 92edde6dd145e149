# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Batch normalisation, and life without it
#     minutes: 1
#     shows: [E5, A3, A16]
# ---

# %% [markdown]
# # Batch normalisation, and life without it
#
# **You will learn** what batch normalisation computes in training and what it computes afterwards, what happens by depth in a network
# that has none, where in the network it may stand, and two faults that it brings with it.
#
# **Before:** lesson 6 (initialisation). **Takes** about a minute.
#
# **Comes from** Ioffe and Szegedy (2015), *Batch normalization: accelerating deep network training by reducing internal covariate shift*.

# %%
import math
import warnings

import torch
from torch import nn

from firstlight.data.loader import Batch
from firstlight.inspection.layer_statistics import measure_layers
from firstlight.models.mlp import MLP
from firstlight.notebooks.lesson import begin
from firstlight.optim.optimizers import sgd
from firstlight.plotting.activations import Series, plot_depth
from firstlight.plotting.style import color_of, new_figure, set_title, tidy

lesson = begin("batch_norm")
train, val = lesson.load(num_train=lesson.pick(small=2_000, full=10_000))
image_shape = tuple(train.images.shape[1:])
print(len(train.images), "training images of shape", image_shape)

# %% [markdown]
# ## A deep network without it
#
# Ten hidden layers of 64 units with ReLU. Good first weights (lesson 6) keep the size of the activations from layer to layer. We spoil
# them a little: all weights 0.3 times as large, or 3 times as large, as they should be.
#
# Each layer multiplies what comes in by its weights. **Predict:** by which factor are the activations of the tenth layer off, when every
# layer's weights are 3 times too large?

# %% kind="predict" name="factor"
### BEGIN SOLUTION
guess = 3**10
### END SOLUTION

# %% [markdown]
# `measure_layers` sends one batch forward and back through a copy of a network. It notes the activations behind each layer, and the
# gradients that come back. It stands in `firstlight/inspection/layer_statistics.py`.

# %%
DEPTH = 10
first_batch = Batch(train.images[:256], train.labels[:256], torch.arange(256))


def deep_network(norm="none", scale=1.0, seed=0):
    """Return a new network with ten hidden layers; norm: none, before or after the activation."""
    torch.manual_seed(seed)
    return MLP(image_shape, 10, hidden=(64,) * DEPTH, norm=norm, init_scale=scale)


def look(norm, scale):
    """Return the figures of each layer of a new network."""
    return measure_layers(deep_network(norm, scale), first_batch, seed=0, device="cpu")[1]


looked = {(norm, scale): look(norm, scale) for norm in ("none", "before", "after") for scale in (0.3, 1.0, 3.0)}
tenth = {key: layers[DEPTH - 1].std for key, layers in looked.items()}
off = tenth["none", 3.0] / tenth["none", 1.0]
lesson.reveal(guess, off, "activations of layer 10: times too large")
lesson.measured("weights 3 times too large: activations of layer 10 over those of good weights", off, least=0.99 * 3**10, most=1.01 * 3**10)
shrunk = tenth["none", 0.3] / tenth["none", 1.0]
lesson.measured("weights 0.3 times: activations of layer 10 over those of good weights", shrunk, most=1e-5)

# %% [markdown]
# ## What it computes
#
# Batch normalisation looks at one unit at a time, over all images of the batch. It subtracts their mean and divides by their standard
# deviation. Then it multiplies by a learned `weight` and adds a learned `bias`, so that the network can have any mean and spread it
# wants:
#
# $$\hat z = \frac{z - \mu}{\sqrt{\sigma^2 + \varepsilon}} \qquad y = \gamma\,\hat z + \beta$$
#
# That needs a batch. After training we want to classify a single image. So while it trains, the layer keeps **running** means of $\mu$
# and $\sigma^2$, and takes those later. Three details that PyTorch has, and you need:
#
# - the variance by which a batch is divided is plain (divide by $n$); the one that goes into the running mean is divided by $n - 1$;
# - a running figure takes the share `momentum` (0.1) of the new one, and keeps $1 - 0.1$ of the old one;
# - $\varepsilon = 10^{-5}$.


# %% kind="exercise" name="batch_norm"
def batch_norm(values, weight, bias, running_mean, running_var, *, training, momentum=0.1, eps=1e-5):
    """Return the normalised values [B, C]; in training the running figures [C] are changed in place."""
    ### BEGIN SOLUTION
    if training:
        mean, var = values.mean(0), values.var(0, correction=0)
        running_mean.mul_(1 - momentum).add_(momentum * mean)
        running_var.mul_(1 - momentum).add_(momentum * values.var(0, correction=1))
    else:
        mean, var = running_mean, running_var
    return (values - mean) / torch.sqrt(var + eps) * weight + bias
    ### END SOLUTION


# %% kind="check" name="batch_norm" points=3
drawn = torch.Generator().manual_seed(0)
oracle = nn.BatchNorm1d(5).double()
with torch.no_grad():
    oracle.weight.copy_(torch.randn(5, generator=drawn))
    oracle.bias.copy_(torch.randn(5, generator=drawn))
kept_mean, kept_var = torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
learned = oracle.weight.detach(), oracle.bias.detach()
apart = {}
for _ in range(3):
    values = 3 * torch.randn(8, 5, generator=drawn, dtype=torch.float64) + 2
    yours = batch_norm(values, *learned, kept_mean, kept_var, training=True)
    assert yours is not None, "batch_norm returns nothing"
    apart["in training"] = (yours - oracle(values)).abs().max().item()
    hint = "is the mean that of each column (dim 0), the variance divided by n, eps under the root?"
    assert apart["in training"] < 1e-9, f"in training you are {apart['in training']:.2g} away from nn.BatchNorm1d: {hint}"
    gap = (kept_mean - oracle.running_mean).abs().max().item()
    assert gap < 1e-9, f"running_mean is {gap:.2g} away: changed in place, with the share momentum of the new mean?"
    gap = (kept_var - oracle.running_var).abs().max().item()
    assert gap < 1e-9, f"running_var is {gap:.2g} away: the variance that goes into it is divided by n - 1"
oracle.eval()
before = kept_mean.clone()
alone = torch.randn(1, 5, generator=drawn, dtype=torch.float64)
apart["afterwards"] = (batch_norm(alone, *learned, kept_mean, kept_var, training=False) - oracle(alone)).abs().max().item()
assert apart["afterwards"] < 1e-9, (
    f"after training you are {apart['afterwards']:.2g} away: take the running figures, not those of the batch"
)
assert torch.equal(before, kept_mean), "the running mean changed although training is False"
lesson.measured("farthest from nn.BatchNorm1d", max(apart.values()), most=1e-9)

# %% [markdown]
# **Predict:** someone trains with batches of a single image. What does batch normalisation (weight 1, bias 0) make of it, in training?

# %% kind="predict" name="alone"
### BEGIN SOLUTION
guess = 0.0
### END SOLUTION

# %%
plain_weight, plain_bias = torch.ones(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
with warnings.catch_warnings(action="ignore"):  # of the variance with n - 1, which is 0/0
    nothing = batch_norm(alone, plain_weight, plain_bias, kept_mean.clone(), kept_var.new_ones(5), training=True)
lesson.reveal(guess, nothing.abs().max().item(), "largest output for a batch of one image")
lesson.measured("largest output for a batch of one image", nothing.abs().max(), most=0)

# %% [markdown]
# One image is its own mean: all that it said is gone. PyTorch stops with an error there. A last batch
# of one image is common, so `BatchNorm1d` in `firstlight/models/layers.py` takes the running figures for it.

# %% [markdown]
# ## By depth, with and without
#
# Dashed is the network without, solid the one with batch normalisation between each linear layer and its ReLU. The weights are the same.

# %%
shown = [
    Series(
        f"{'without' if norm == 'none' else 'with'}, weights x {scale:g}", place, norm == "none", [layer.to_json() for layer in layers], []
    )
    for place, scale in enumerate((0.3, 3.0))
    for norm in ("none", "before")
    for layers in [looked[norm, scale]]
]
lesson.show(plot_depth(shown, title="A new network with ten hidden layers, without and with batch normalisation"), "depth")


# %%
def first_gradient(norm, scale):
    """Return the gradient of the first layer's weights, over the size of the weights."""
    return looked[norm, scale][0].relative_gradient


for norm in ("none", "before"):
    print(
        norm,
        "first layer's gradient over its weights:",
        " ".join(f"x{scale:g}: {first_gradient(norm, scale):.2g}" for scale in (0.3, 1.0, 3.0)),
    )
ends = {norm: tenth[norm, 3.0] / tenth[norm, 0.3] for norm in ("none", "before")}
lesson.measured("without: activations of layer 10, large weights over small ones", ends["none"], least=1e9)
lesson.measured("with: the same", ends["before"], least=0.5, most=2)
lesson.measured(
    "without: first layer's gradient with small weights, over that with good ones",
    first_gradient("none", 0.3) / first_gradient("none", 1.0),
    most=1e-3,
)

# %% [markdown]
# Without it the size of a weight is raised to the power of the depth. With it each layer begins anew: multiply all weights of a layer by
# 3, and the output of the normalisation behind it stays the same. So the scale of the first weights hardly matters any more.

# %% [markdown]
# ## Does it learn?
#
# A study: without normalisation, before the activation, after it; three scales of the first weights; several learning rates. Plain gradient
# descent on batches of 64.

# %%
STEPS = lesson.pick(small=60, full=200)
LRS = lesson.pick(small=(0.1, 0.3), full=(0.001, 0.01, 0.1, 1.0))
SCALES = lesson.pick(small=(0.3, 1.0), full=(0.3, 1.0, 3.0))
NORMS = ("none", "before", "after")


def descend(model, lr, images=train.images, num_steps=STEPS):
    """Train with plain gradient descent; return the mean loss of the last 20 steps, or infinity where it broke."""
    optimizer, order, losses = sgd(model.parameters(), lr=lr), torch.Generator().manual_seed(0), []
    while len(losses) < num_steps:
        for rows in torch.randperm(len(images), generator=order).split(64)[: num_steps - len(losses)]:
            loss = nn.functional.cross_entropy(model(images[rows]), train.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    last = sum(losses[-20:]) / 20
    return last if math.isfinite(last) else math.inf


ended = {(norm, scale, lr): descend(deep_network(norm, scale), lr) for norm in NORMS for scale in SCALES for lr in LRS}

# %% [markdown]
# We call it learned when the loss is below 1.5; $\ln 10 = 2.30$ is the loss of a network that knows nothing.
# **Predict:** in which share of the settings does the network **without** normalisation learn (0 to 1)?

# %% kind="predict" name="share"
### BEGIN SOLUTION
guess = lesson.pick(small=0.0, full=1 / 6)
### END SOLUTION

# %%
learned_in = {norm: sum(loss < 1.5 for (which, _, _), loss in ended.items() if which == norm) / len(SCALES) / len(LRS) for norm in NORMS}
lesson.reveal(guess, learned_in["none"], "share of settings that learn without normalisation")
lesson.measured("share of settings that learn without", learned_in["none"], most=0.4)
lesson.measured("share of settings that learn with it before the activation", learned_in["before"], least=0.45)
lesson.measured("share of settings that learn with it after the activation", learned_in["after"], least=0.45)

best_loss = {norm: min(loss for (which, _, _), loss in ended.items() if which == norm) for norm in NORMS}
lesson.measured("best loss without over best loss with it before the activation", best_loss["none"] / best_loss["before"], least=1.05)

figure, panels = new_figure(1, len(SCALES), width=3.9 * len(SCALES), height=3.8, sharey=True)
for panel, scale in zip(panels, SCALES, strict=True):
    for place, norm in enumerate(NORMS):
        panel.plot(LRS, [min(ended[norm, scale, lr], 20) for lr in LRS], color=color_of(place), marker="o", label=norm)
    panel.axhline(math.log(10), color="black", linewidth=0.8, linestyle=":")
    panel.set(xscale="log", yscale="log")
    tidy(panel, x="learning rate", y="training loss (nats)" if scale == SCALES[0] else "", title=f"first weights x {scale:g}")
panels[-1].legend(frameon=False, fontsize=9, title="normalisation")
set_title(figure, f"Loss after {STEPS} steps; dotted: ln 10, nothing learned; 20 stands for worse and for broken")
lesson.show(figure, "rates")

# %% [markdown]
# ## Before or after the activation?
#
# The paper puts it before the ReLU: linear, norm, ReLU. Many find it as good behind: linear, ReLU, norm. The picture has both. Compare the
# best of each, over three seeds.

# %%
best_of = {norm: min((ended[norm, 1.0, lr], lr) for lr in LRS)[1] for norm in ("before", "after")}
again = {
    norm: torch.tensor([descend(deep_network(norm, seed=seed), lr) for seed in range(3)], dtype=torch.float64)
    for norm, lr in best_of.items()
}
for norm, losses in again.items():
    print(norm, f"at lr {best_of[norm]:g}: loss", " ".join(f"{loss:.3f}" for loss in losses.tolist()))
ratio = again["after"].mean() / again["before"].mean()
lesson.measured("loss with it after the activation over loss with it before, means of 3 seeds", ratio, least=0.5, most=2)

# %% [markdown]
# They are less than a factor of 2 apart, and which is ahead depends on the data and on the learning rate. The network without
# any is behind both even at its best setting, and few of its settings work at all.

# %% [markdown]
# ## As input scaling
#
# Pixels come as 0 to 255. We always divide by 255 first. What if nobody does? A batch normalisation as the very first layer
# (`input_norm`) sees to it. `MLP` without any other normalisation, learning rate 0.1:

# %%
pixels = train.images * 255


def shallow(images, **settings):
    """Return the loss that a network with two hidden layers reaches on these images."""
    torch.manual_seed(0)
    return descend(MLP(image_shape, 10, **settings), 0.1, images)


scaled, raw = shallow(train.images), shallow(pixels)
normed, normed_raw = shallow(train.images, input_norm=True), shallow(pixels, input_norm=True)
lesson.measured("pixels from 0 to 1: loss", scaled, most=1.3)
lesson.measured("pixels from 0 to 255: loss", raw, least=1.8)
lesson.measured("pixels from 0 to 255 behind a batch normalisation: loss", normed_raw, most=1.3)
lesson.measured("behind it: difference between the two kinds of pixels", abs(normed - normed_raw), most=0.1)

# %% [markdown]
# ## Two faults it brings
#
# **The bias before it does nothing.** The mean is subtracted, and a bias moves just the mean. Its gradient is zero up to rounding.
# Networks with batch normalisation leave those biases out.

# %%
probe = deep_network("before")
nn.functional.cross_entropy(probe(first_batch.images), first_batch.labels).backward()
lesson.measured("largest gradient of a bias before a normalisation", probe.linear1.bias.grad.abs().max(), most=1e-6)
lesson.measured("largest gradient of a weight of that layer", probe.linear1.weight.grad.abs().max(), least=1e-4)

# %% [markdown]
# **In training mode an image's answer depends on its neighbours.** Forget `model.eval()`, and the batch decides. Below, the same
# validation images: in eval mode; in train mode, shuffled; in train mode, sorted by class, as a folder of images often is.

# %%
torch.manual_seed(0)
classifier = MLP(image_shape, 10, norm="before")
descend(classifier, 0.1, num_steps=lesson.pick(small=100, full=400))
shuffled = torch.randperm(len(val.labels), generator=torch.Generator().manual_seed(0))[: lesson.pick(small=2_000, full=None)]


@torch.no_grad()
def accuracy_in(order):
    """Return the accuracy over the validation images, in batches of 20 taken in this order."""
    right = sum((classifier(val.images[rows]).argmax(1) == val.labels[rows]).sum().item() for rows in order.split(20))
    return right / len(order)


kept = {name: value.clone() for name, value in classifier.state_dict().items()}
classifier.eval()
in_eval = accuracy_in(shuffled)
classifier.train()
in_train, by_class = accuracy_in(shuffled), accuracy_in(shuffled[val.labels[shuffled].argsort(stable=True)])
lesson.measured("accuracy in eval mode", in_eval, least=lesson.on(mnist=0.85, digits=0.85))
lesson.measured("accuracy in train mode, shuffled", in_train, least=0.7)
lesson.measured("accuracy in train mode, sorted by class", by_class, most=0.6)
moved = max((value - kept[name]).abs().max().item() for name, value in classifier.state_dict().items() if name.endswith("running_mean"))
lesson.measured("and the running means moved by", moved, least=0.01)
nines = val.images[val.labels == 9]
with torch.no_grad():
    for _ in range(20):
        classifier(nines)  # in train mode; no label, no gradient, no optimizer
classifier.eval()
lesson.measured("20 batches of nines later, accuracy in eval mode fell by", in_eval - accuracy_in(shuffled), least=0.03)
classifier.load_state_dict(kept)

# %% [markdown] kind="answer" name="sorted" points=2
# Why does sorting ruin the accuracy in train mode? And why did 20 batches of nines hurt the network, although nothing was trained?
#
# ### BEGIN SOLUTION
# A batch of one class has the mean of that class. Normalisation subtracts it, and with it what tells this class from the others: each
# batch looks like an average one. And train mode changes the running mean and variance, even without gradients: they now are those of
# nines.
# ### END SOLUTION

# %% [markdown]
# ## After training it is only a line
#
# In eval mode $\mu$ and $\sigma$ are constants. Then batch normalisation multiplies each unit by a number and adds a number, and so it
# can be **folded** into the linear layer before it: one layer less, the same answers. Exported networks are made so.


# %% kind="exercise" name="fold"
def fold(linear, norm):
    """Return a new nn.Linear that gives what `linear` and then `norm` (an nn.BatchNorm1d in eval mode) give."""
    folded = nn.Linear(linear.in_features, linear.out_features)
    with torch.no_grad():
        ### BEGIN SOLUTION
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        folded.weight.copy_(linear.weight * factor[:, None])
        folded.bias.copy_((linear.bias - norm.running_mean) * factor + norm.bias)
        ### END SOLUTION
    return folded


# %% kind="check" name="fold" points=2
one_layer = fold(classifier.linear1, classifier.norm1)
flat = val.images[:200].flatten(1)
with torch.no_grad():
    two_layers = classifier.norm1(classifier.linear1(flat))
    apart_by = (one_layer(flat) - two_layers).abs().max().item()
    slope_only = ((one_layer(flat) - one_layer(flat[:1])) - (two_layers - two_layers[:1])).abs().max().item()
assert slope_only < 1e-3, "the weights are wrong: row i is multiplied by norm.weight[i] / sqrt(running_var[i] + eps)"
assert apart_by < 1e-3, "the bias is wrong: the old bias goes through the normalisation too, then norm.bias comes on top"
lesson.measured("farthest from the two layers", apart_by, most=1e-3)

# %% [markdown]
# ## Where this stands in firstlight
#
# `MLP` takes `norm: before` or `after` and `input_norm` (`firstlight/models/mlp.py`); the five-layer CNN takes `norm: true` or `false`.
# `firstlight/models/layers.py` has the layer with its answer to a batch of one.
# `firstlight inspect activations cifar10_cnn5 --grid model.norm=true,false` draws the picture by depth for that network, new and after
# some steps; `firstlight sweep cifar10_norm` is this lesson's study on it.
