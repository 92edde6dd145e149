# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Overfitting, and two ways against it
#     minutes: 1
#     shows: [E4, B8, B9]
# ---

# %% [markdown]
# # Overfitting, and two ways against it: dropout and L2
#
# **You will learn** how overfitting looks, what dropout and an L2 penalty do against it, where dropout stands in a network, how a
# classifier is measured class by class, and how dropout can tell you what a network is unsure of.
#
# **Before:** lesson 4 (the training loop). **Takes** about a minute.
#
# **Comes from** Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov (2014), *Dropout: a simple way to prevent neural networks from
# overfitting*; Hoerl and Kennard (1970), *Ridge regression* (L2); Gal and Ghahramani (2016), *Dropout as a Bayesian approximation*.

# %%
import math

import torch
from torch import nn

import firstlight as fl
from firstlight.inspection.dropout_passes import dropout_on
from firstlight.metrics.uncertainty import PassTotals
from firstlight.models.mlp import MLP
from firstlight.notebooks.lesson import begin
from firstlight.optim.optimizers import sgd
from firstlight.plotting.curves import plot_curves
from firstlight.plotting.style import color_of, new_figure, tidy
from firstlight.plotting.uncertainty import plot_image_uncertainty
from firstlight.tracking.console import Console

lesson = begin("dropout_and_l2")
NUM_TRAIN = lesson.on(mnist=500, digits=150)
VAL_FRACTION = lesson.pick(small=lesson.on(mnist=1 / 60, digits=1 / 6), full=1 / 6)
HIDDEN = lesson.on(mnist=[256, 128], digits=[512])
L2 = lesson.on(mnist=0.01, digits=0.003)
EPOCHS = lesson.pick(small=lesson.on(mnist=25, digits=50), full=60)
train, val = lesson.load(num_train=NUM_TRAIN, val_fraction=VAL_FRACTION)
image_shape = tuple(train.images.shape[1:])
print(len(train.images), "training images,", len(val.images), "validation images")

# %% [markdown]
# ## Too few images
# A network with hundreds of hidden units has far more weights than we have training images. It can learn each of them by heart. We train
# it with the engine for many epochs, four times from the same first weights: plain; with dropout; with an L2 penalty; with both. (What
# these are comes below.)
#
# **Predict before you run on:** which share of its training images does the plain network get right in the end?

# %% kind="predict" name="train_accuracy"
### BEGIN SOLUTION
guess = 1.0
### END SOLUTION

# %%
SETTINGS = {
    "plain": (0.0, 0.0),
    "dropout 0.5": (0.5, 0.0),
    "L2": (0.0, L2),
    "dropout 0.5 and L2": (0.5, L2),
}


def train_on_few(dropout, weight_decay):
    """Train with the engine on the same few images, and return the run."""
    return fl.train(
        "mnist_mlp",
        data=lesson.data,
        split={"num_train": NUM_TRAIN, "val_fraction": VAL_FRACTION},
        input={"normalize": "none"},
        model={"hidden": HIDDEN, "dropout": dropout},
        optim={"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": weight_decay},
        schedule="cosine",  # the learning rate falls to 0, so that the last weights do not jump about (lesson 10)
        train={"epochs": EPOCHS, "batch_size": 50, "log_every": 100},
        runs_dir="runs",
        console=Console(quiet=True),
    )


runs = {name: train_on_few(*setting) for name, setting in SETTINGS.items()}


@torch.no_grad()
def figures(model, part):
    """Return the mean loss and the accuracy over some images, in eval mode."""
    model.eval()
    logits = model(part.images)
    return nn.functional.cross_entropy(logits, part.labels).item(), (logits.argmax(1) == part.labels).double().mean().item()


ended = {name: fl.load_model(run, which="last") for name, run in runs.items()}
on_train = {name: figures(model, train) for name, model in ended.items()}
on_val = {name: figures(model, val) for name, model in ended.items()}
lesson.reveal(guess, on_train["plain"][1], "plain: share of the training images that it gets right")
lesson.measured("plain: training accuracy", on_train["plain"][1], least=0.995)
lesson.measured("plain: validation accuracy", on_val["plain"][1], most=0.97)

# %% [markdown]
# Every training image right, and many new ones wrong: that is **overfitting**. The curves below tell when it begins. Dashed is the
# training loss: it goes to zero. Solid is the validation loss of the plain network: it stops falling early, and on MNIST it rises again,
# although the accuracy hardly changes. The network grows ever surer of itself, on what it gets wrong too.

# %%
lesson.show(plot_curves({"plain": runs["plain"].epochs}), "plain")
losses = [row["val_loss"] for row in runs["plain"].epochs]
lesson.measured("plain: last validation loss over the lowest", losses[-1] / min(losses), least=lesson.on(mnist=1.02, digits=0.99))
lesson.measured("plain: validation loss over training loss, at the end", on_val["plain"][0] / on_train["plain"][0], least=5)

# %% [markdown]
# ## Dropout
#
# In each training step dropout sets every hidden unit to 0 with probability $p$, drawn anew for each image. No unit can rely on another
# one being there, so what the network knows is spread out. To keep the sums the same on average, the units that stay are multiplied by
# $1/(1-p)$ (**inverted** dropout). So in eval mode there is nothing to do: all units are there, as they are.
#
# **Predict:** a unit has the value 3, and $p = 0.4$. What is its mean over many training steps?

# %% kind="predict" name="mean"
### BEGIN SOLUTION
guess = 3.0
### END SOLUTION

# %% [markdown]
# Write it. Draw with `torch.rand(values.shape, generator=generator)`.


# %% kind="exercise" name="dropout"
def dropout(values, p, generator, *, training):
    """Return the values [B, C] with a share p of them set to 0, and the others scaled up; in eval mode as they are."""
    ### BEGIN SOLUTION
    if not training:
        return values
    stays = torch.rand(values.shape, generator=generator) >= p
    return values * stays / (1 - p)
    ### END SOLUTION


# %% kind="check" name="dropout" points=2
drawn = torch.Generator().manual_seed(0)
units = torch.full((200, 500), 3.0)
dropped = dropout(units, 0.4, drawn, training=True)
assert dropped is not None, "dropout returns nothing"
assert torch.equal(dropout(units, 0.4, drawn, training=False), units), "in eval mode the values must come back as they are"
assert (units == 3).all(), "the values that came in were changed: work on a copy"
share = (dropped == 0).double().mean().item()
assert abs(share - 0.4) < 0.02, f"{share:.3f} of the values are 0, and p is 0.4: is it the share that goes, or the one that stays?"
kept_values = dropped[dropped != 0]
assert (kept_values - 5).abs().max() < 1e-5, f"the units that stay have the value {kept_values[0]:.3g}: 3 / (1 - 0.4) = 5 keeps the mean"
per_image, per_unit = (dropped == 0).double().mean(1).std(), (dropped == 0).double().mean(0).std()
assert per_image < 0.1 and per_unit < 0.1, "whole images or whole units are dropped: draw for every value by itself"
assert not torch.equal(dropped, dropout(units, 0.4, drawn, training=True)), "the second call drops the same units: draw anew each time"
lesson.measured("mean of the dropped values", dropped.mean(), least=2.95, most=3.05)

# %%
lesson.reveal(guess, dropped.mean().item(), "mean over many steps")

# %% [markdown]
# ## Behind the activation, not before it
#
# Dropout says "this unit is not there", so its output must be 0. **Predict:** what does a unit with a **sigmoid** put out, when dropout
# stands before the activation and drops it?

# %% kind="predict" name="before_sigmoid"
### BEGIN SOLUTION
guess = 0.5
### END SOLUTION

# %%
inputs = torch.randn(200, 500, generator=drawn)
gone = dropout(torch.ones(200, 500), 0.4, torch.Generator().manual_seed(1), training=True) == 0
before_sigmoid = torch.sigmoid(dropout(inputs, 0.4, torch.Generator().manual_seed(1), training=True))
lesson.reveal(guess, before_sigmoid[gone].mean().item(), "output of a dropped sigmoid unit")
lesson.measured("a dropped sigmoid unit puts out", before_sigmoid[gone].mean(), least=0.5, most=0.5)
relu_before = torch.relu(dropout(inputs, 0.4, torch.Generator().manual_seed(1), training=True))
relu_behind = dropout(torch.relu(inputs), 0.4, torch.Generator().manual_seed(1), training=True)
lesson.measured("with ReLU: largest difference between the two orders", (relu_before - relu_behind).abs().max(), most=1e-6)

# %% [markdown]
# With ReLU the order makes no difference: ReLU of 0 is 0, and ReLU of a multiple is the multiple. With any other activation it does.
# `MLP` puts dropout behind the activation, always.

# %% [markdown]
# ## L2
#
# Another way: make large weights cost something. With a penalty of strength $\lambda$ the loss becomes
#
# $$L + \frac{\lambda}{2} \sum_i w_i^2$$
#
# The gradient of the new part is $\lambda w$: each step shrinks every weight a little (**weight decay**). Optimizers add $\lambda w$ to
# the gradient by themselves (`weight_decay`). Write the penalty, so that the loss with it has the same gradient as `weight_decay`.


# %% kind="exercise" name="penalty"
def penalty(model, weight_decay):
    """Return the penalty of all parameters of a model, as a tensor that can be added to the loss."""
    ### BEGIN SOLUTION
    return weight_decay / 2 * sum(parameter.square().sum() for parameter in model.parameters())
    ### END SOLUTION


# %% kind="check" name="penalty" points=2
# One step with your penalty against one step of the optimizer with weight_decay, from the same weights.
def weights_after_step(with_penalty):
    """Return all weights after one step, as one tensor."""
    torch.manual_seed(0)
    model = MLP(image_shape, 10, hidden=(16,), init="torch_default")
    optimizer = sgd(model.parameters(), lr=0.1, weight_decay=0.0 if with_penalty else 0.3)
    loss = nn.functional.cross_entropy(model(train.images), train.labels)
    if with_penalty:
        loss = loss + penalty(model, 0.3)
    loss.backward()
    optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


by_optimizer, by_penalty = weights_after_step(with_penalty=False), weights_after_step(with_penalty=True)
off_by = (by_penalty - by_optimizer).abs().max().item()
assert off_by < 1e-5, (
    f"the weights end {off_by:.2g} apart: squares, not absolute values; half of weight_decay; all parameters, biases too; a sum, not a mean"
)
lesson.measured("farthest from the step with weight_decay", off_by, most=1e-5)

# %% [markdown]
# ## The gap, with and without

# %%
for name in runs:
    print(
        f"{name}: training loss {on_train[name][0]:.3f}, validation loss {on_val[name][0]:.3f}, "
        f"gap {on_val[name][0] - on_train[name][0]:.3f}; validation accuracy {on_val[name][1]:.4f}"
    )
figure, (left, right) = new_figure(1, 2, width=11, height=4)
for place, (name, run) in enumerate(runs.items()):
    epochs = [row["epoch"] for row in run.epochs]
    left.plot(epochs, [row["train_loss"] for row in run.epochs], color=color_of(place), label=name)
    right.plot(epochs, [row["val_loss"] for row in run.epochs], color=color_of(place), label=name)
left.set(yscale="log")
tidy(left, x="epoch", y="training loss as it trains (nats)")
tidy(right, x="epoch", y="validation loss (nats)")
right.set_ylim(0, 1.2)
right.legend(frameon=False, fontsize=9)
lesson.show(figure, "four_runs")

gap = {name: on_val[name][0] - on_train[name][0] for name in runs}
both = "dropout 0.5 and L2"
lesson.measured("dropout: gap over that of the plain network", gap["dropout 0.5"] / gap["plain"], most=lesson.on(mnist=0.99, digits=1.1))
lesson.measured("L2: gap over that of the plain network", gap["L2"] / gap["plain"], most=lesson.on(mnist=0.85, digits=0.97))
lesson.measured("both: gap over that of the plain network", gap[both] / gap["plain"], most=lesson.on(mnist=0.85, digits=0.97))
lesson.measured(
    "both: validation loss over that of the plain network", on_val[both][0] / on_val["plain"][0], most=lesson.on(mnist=0.95, digits=1.1)
)
accuracies = [accuracy for _, accuracy in on_val.values()]
lesson.measured("largest difference between two of the four accuracies", max(accuracies) - min(accuracies), most=0.04)


def size_of(model):
    """Return the norm of all weights."""
    return math.sqrt(sum(parameter.square().sum().item() for parameter in model.parameters()))


lesson.measured(
    "size of the weights with L2 over that of the plain network",
    size_of(ended["L2"]) / size_of(ended["plain"]),
    most=lesson.on(mnist=0.8, digits=0.97),
)

# %% [markdown]
# Both narrow the gap, L2 more than dropout here. On MNIST the validation loss falls by it; the 8x8 digits are so easy that it hardly moves.
#
# The gaps were measured in eval mode. In the left picture, as it trains, dropout is on: so those losses lie higher, and may lie above the
# validation loss. That is no fault.
#
# Be careful with the accuracies: they lie close together, and such a difference may be chance (lesson 11 shows how to tell). More data
# helps more than either.

# %% [markdown] kind="answer" name="left_and_right" points=2
# A friend trains with dropout 0.5 and says: "My validation loss is lower than my training loss in every epoch, so the validation set must
# be too easy." What is the likelier reason, and how can it be checked?
#
# ### BEGIN SOLUTION
# The training loss is measured while dropout is on, with half of the units gone; the validation loss is measured with all of them.
# Compute the loss on the training images again, in eval mode: it will be lower than the validation loss. (Besides, the training loss is a
# mean over an epoch in which the network still improved.)
# ### END SOLUTION

# %% [markdown]
# ## Class by class
#
# `fl.evaluate` takes the best epoch of a run, in eval mode and without gradients. The confusion matrix counts images of true class (row)
# taken for a class (column). All the rest follows from it:
#
# - **precision** of a class: of the images taken for it, the share that are of it;
# - **recall**: of its images, the share that were found;
# - **F1**: their harmonic mean, $2PR/(P+R)$;
# - **top-k accuracy**: the share of images whose class is among the $k$ likeliest.


# %% kind="exercise" name="by_class"
def by_class(confusion):
    """Return precision, recall and F1, each float64 [K], of a confusion matrix [K, K] in which each class occurs in rows and columns."""
    ### BEGIN SOLUTION
    right = confusion.diagonal().double()
    precision, recall = right / confusion.sum(0), right / confusion.sum(1)
    return precision, recall, 2 * precision * recall / (precision + recall)
    ### END SOLUTION


# %% kind="check" name="by_class" points=2
evaluation = fl.evaluate(runs[both].path)
answered = by_class(torch.tensor(evaluation["confusion"]))
assert answered is not None, "by_class returns nothing"
for measure, yours in zip(("precision", "recall", "f1"), answered, strict=True):
    theirs = torch.tensor([row[measure] for row in evaluation["classes"]], dtype=torch.float64)
    off_by = (yours - theirs).abs().max().item()
    assert off_by < 1e-9, f"{measure} is up to {off_by:.2g} away: a row is a true class, a column what it was taken for"
print("precision, recall and F1 are those of fl.evaluate")

# %%
for row in evaluation["classes"]:
    print(f"class {row['class']}: {row['images']} images, precision {row['precision']:.3f}, recall {row['recall']:.3f}, F1 {row['f1']:.3f}")
lesson.measured("accuracy", evaluation["accuracy"], least=lesson.on(mnist=0.75, digits=0.75))
lesson.measured(f"top-{evaluation['top_k']} accuracy minus accuracy", evaluation["top_k_accuracy"] - evaluation["accuracy"], least=0.02)
recalls = [row["recall"] for row in evaluation["classes"]]
lesson.measured("best recall of a class minus the worst", max(recalls) - min(recalls), least=0.01)

# %% [markdown]
# One accuracy hides that the classes differ.

# %% [markdown]
# ## A first look at Monte-Carlo dropout
#
# Leave dropout **on** when you ask the network, and ask it 100 times: each time another part of it answers. Where all agree, it is sure.
# Where they do not, it is not. `dropout_on` switches the dropout layers alone; batch normalisation, if there were any, would stay in eval
# mode.

# %%
NUM_ASKED = lesson.pick(small=300, full=1_000)
model = ended["dropout 0.5"].eval()
asked = val.images[:NUM_ASKED], val.labels[:NUM_ASKED]
torch.manual_seed(0)
with torch.no_grad(), dropout_on(model):
    passes = torch.stack([model(asked[0]) for _ in range(100)]).softmax(-1)  # [100, N, 10]
with torch.no_grad():
    right = model(asked[0]).argmax(1) == asked[1]
totals = PassTotals.of(passes[0].log())
for one in passes[1:]:
    totals.add(PassTotals.of(one.log()))
entropy = totals.predictive_entropy
lesson.measured("largest difference between two passes", (passes[0] - passes[1]).abs().max(), least=0.05)

surest, least_sure = entropy.argmin().item(), entropy.argmax().item()
names = [str(number) for number in range(10)]
for called, which in (("surest", surest), ("least sure", least_sure)):
    title = f"The {called} of the validation images; classes chosen in 100 passes: {int((totals.votes[which] > 0).sum())}"
    drawing = (asked[0][which, 0] * 255).round().to(torch.uint8)[..., None].numpy()
    figure = plot_image_uncertainty(
        drawing, names, totals.votes[which].numpy(), passes[:, which].double().numpy(), label=str(asked[1][which].item()), title=title
    )
    lesson.show(figure, called.replace(" ", "_"))
lesson.measured("classes chosen for the least sure image", (totals.votes[least_sure] > 0).sum(), least=2)
lesson.measured("passes that agree on the surest image", totals.votes[surest].max(), least=98)
lesson.measured(
    "mean entropy (nats) of what it gets wrong, over that of what it gets right", entropy[~right].mean() / entropy[right].mean(), least=1.3
)

# %% [markdown]
# The network is less sure where it is wrong. So a person could look at the least sure images, and leave the others to the network. Lesson
# 14 goes on from here.

# %% [markdown] kind="answer" name="why_not_train" points=1
# Why not simply call `model.train()` to switch dropout on for the 100 passes?
#
# ### BEGIN SOLUTION
# train() switches every layer. Batch normalisation would then use the statistics of the batch that is asked about, so that an image's
# answer depends on its neighbours, and it would change its running figures as well.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/models/mlp.py` puts `nn.Dropout` behind the activation. `weight_decay` is a setting of every optimizer
# (`firstlight/optim/optimizers.py`). `firstlight/metrics/evaluation.py` derives all figures from the confusion matrix.
# `firstlight inspect uncertainty RUN --image 5` asks 100 times about one image, and without `--image` about all of them;
# `firstlight/inspection/dropout_passes.py` is the code of it.
