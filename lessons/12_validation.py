# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Validation, early stopping, and saving what you have
#     minutes: 1
#     shows: [B8, B11, B12]
# ---

# %% [markdown]
# # Validation, early stopping, and saving what you have
#
# **You will learn** to judge a network by images that it has never seen, and four ways to fool yourself while doing so. You will stop a
# training when it no longer gets better and go back to its best epoch, save weights in a file that cannot run code, and open a sealed test
# set, once.
#
# **Before:** lesson 4 (the training loop). **Takes** about a minute.
#
# **Comes from** Stone (1974), *Cross-validatory choice and assessment of statistical predictions*; Prechelt (1998), *Early stopping, but
# when?*; Zhang et al. (2017), *Understanding deep learning requires rethinking generalization* (networks that learn labels drawn by dice);
# Kapoor and Narayanan (2023), *Leakage and the reproducibility crisis in machine-learning-based science*.

# %%
import io
import json
import math
import pickle
import pickletools

import torch
from safetensors.torch import load as load_safetensors
from torch import nn

import firstlight as fl
from firstlight.data.splits import carve, split_hash
from firstlight.engine.checkpoint import find_checkpoint, load_weights, read_weights
from firstlight.errors import CheckpointError
from firstlight.inspection.duplicates import find_duplicates
from firstlight.models.mlp import MLP
from firstlight.notebooks.lesson import begin
from firstlight.plotting.curves import plot_curves
from firstlight.tracking.console import Console

lesson = begin("validation")
NUM_TRAIN = lesson.on(mnist=1_000, digits=200)
VAL_FRACTION = lesson.on(mnist=lesson.pick(small=1 / 20, full=1 / 6), digits=1 / 6)
train, val = lesson.load(num_train=NUM_TRAIN, val_fraction=VAL_FRACTION)
image_shape = tuple(train.images.shape[1:])
print(len(train.images), "images to train on,", len(val.images), "to validate on")

# %% [markdown]
# ## Three parts, three questions
#
# - **Training** images change the weights.
# - **Validation** images change your mind: which learning rate, which network, which epoch. They never touch a gradient.
# - **Test** images change nothing. They answer one question, once, at the very end: how good is what you chose?
#
# The network has seen the labels of the first part, and *you* have seen those of the second. Only the third is fresh.
#
# First, how not to split. Image folders come sorted by class: all zeros, then all ones, and so on. Suppose that somebody takes the last
# tenth of such a list as validation. **Predict:** what share of it will the network get right?

# %% kind="predict" name="sorted_split"
### BEGIN SOLUTION
guess = 0.0
### END SOLUTION


# %%
def learn(images, labels, epochs, lr=1e-3, seed=0):
    """Train a network with Adam until it knows every image by heart, for at most so many epochs, and return it."""
    torch.manual_seed(seed)
    model = MLP(image_shape, 10, hidden=(256,))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        if accuracy(model, images, labels) == 1:
            break
    return model


def accuracy(model, images, labels):
    """Return the share of the images that the network gets right."""
    model.eval()
    with torch.no_grad():
        share = (model(images).argmax(1) == labels).float().mean().item()
    model.train()
    return share


def mean_loss(model, images, labels):
    """Return the mean cross-entropy over the images."""
    with torch.no_grad():
        return nn.functional.cross_entropy(model(images), labels).item()


def last_of(labels, fraction=0.1):
    """Return the rows to train on and the rows to validate on, the latter being the last of the list."""
    cut = len(labels) - round(len(labels) * fraction)
    return torch.arange(cut), torch.arange(cut, len(labels))


num_each = train.labels.bincount().min().item()
by_class = torch.cat([(train.labels == digit).nonzero().flatten()[:num_each] for digit in range(10)])
images, labels = train.images[by_class], train.labels[by_class]
print(num_each, "images of each class; the list begins with", labels[:5].tolist(), "and ends with", labels[-5:].tolist())

# %%
rows, held_out = last_of(labels)
seen = labels[rows].bincount(minlength=10)
print("training images of each class:  ", seen.tolist())
print("validation images of each class:", labels[held_out].bincount(minlength=10).tolist())
model = learn(images[rows], labels[rows], epochs=30)
on_last = accuracy(model, images[held_out], labels[held_out])
lesson.reveal(guess, on_last, "accuracy on the last tenth of a sorted list")
lesson.measured("share of the last tenth that is right", on_last, most=0.02)

# %% [markdown]
# The network has never met a 9, and is asked for nothing else. The number is useless, and a lower one than the truth; the same mistake
# with a list that is sorted otherwise gives one that is too high. So: **shuffle before you split**, by a seed, that the split can be had
# again. And keep the classes in proportion (a *stratified* split), or chance gives a rare class to one side.
#
# Write it. For each class: shuffle its rows by one generator with the seed, and hold out `round(size * fraction)` of them.


# %% kind="exercise" name="split"
def split(labels, fraction, seed):
    """Return the sorted rows (int64) to train on and to validate on; of each class the same share is held out, at random by the seed."""
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    for label in labels.unique():
        of_class = (labels == label).nonzero().flatten()
        shuffled = of_class[torch.randperm(len(of_class), generator=generator)]
        held_out[shuffled[: round(len(of_class) * fraction)]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
    ### END SOLUTION


# %% kind="check" name="split" points=2
# Classes of very different size, in a list that is sorted by them; `carve` of firstlight/data/splits.py is the oracle.
uneven = torch.arange(10).repeat_interleave(torch.tensor([400, 200, 100, 50, 50, 50, 50, 40, 40, 20]))
assert split(uneven, 0.1, seed=3) is not None, "split returns nothing: return the rows of both parts"
yours_train, yours_val = split(uneven, 0.1, seed=3)
assert not set(yours_train.tolist()) & set(yours_val.tolist()), "some rows are in both parts: that is leakage"
assert sorted([*yours_train.tolist(), *yours_val.tolist()]) == list(range(len(uneven))), "a row is in neither part, or twice in one"
expected_val = carve(uneven, 0.1, seed=3)[1]
expected = uneven[expected_val].bincount(minlength=10)
found = uneven[yours_val].bincount(minlength=10)
assert len(yours_val) == len(expected_val), f"{len(yours_val)} rows are held out, and should be {len(expected_val)}"
assert torch.equal(found, expected), f"held out of each class: {found.tolist()}, in proportion it is {expected.tolist()}"
assert torch.equal(split(uneven, 0.1, seed=3)[1], yours_val), "the same seed gave another split: draw from a generator with that seed"
others = [split(uneven, 0.1, seed=seed)[1] for seed in range(4, 8)]
assert not any(torch.equal(other, yours_val) for other in others), "another seed gives the same split: shuffle before you hold out"
assert not torch.equal(others[0][:40] - others[1][:40], torch.zeros(40)), "the largest class is not shuffled"
print("held out of each class:", found.tolist(), "- the same as firstlight's")

# %%
rows, held_out = split(labels, 0.1, seed=0)
model = learn(images[rows], labels[rows], epochs=30)
shuffled_share = accuracy(model, images[held_out], labels[held_out])
lesson.measured("share of a stratified tenth that is right", shuffled_share, least=0.7)
print("a name for the split, as the record of a run holds it:", split_hash(held_out))

# %% [markdown]
# ## Leakage
#
# **Leakage** is whatever lets the answer slip from validation into training. The number then looks better than the truth, so nobody
# complains. The plainest form are copies: the same image in both parts.
#
# To see nothing but leakage, take labels **drawn by dice**. There is nothing to learn in them. On fresh images no network can be right
# more often than one time in ten. But a network can learn the training images by heart.
#
# Half of the validation images below are copies from the training part, with the label that they have there. **Predict:** what will the
# validation accuracy be?

# %% kind="predict" name="leak"
### BEGIN SOLUTION
guess = 0.5 * 1.0 + 0.5 * 0.1
### END SOLUTION

# %%
drawn = torch.Generator().manual_seed(0)
num = lesson.on(mnist=lesson.pick(small=200, full=400), digits=lesson.pick(small=100, full=140))
dice = torch.randint(10, (3 * num,), generator=drawn)
pool = torch.cat([train.images, val.images])[: 3 * num]
rows, fresh = torch.arange(num), torch.arange(num, 3 * num)
model = learn(pool[rows], dice[rows], epochs=200)
leaky = torch.cat([rows, fresh[:num]])
by_heart = accuracy(model, pool[rows], dice[rows])
with_copies = accuracy(model, pool[leaky], dice[leaky])
without = accuracy(model, pool[fresh], dice[fresh])
lesson.reveal(guess, with_copies, "validation accuracy when every second image is a copy")
lesson.measured("training accuracy on labels drawn by dice", by_heart, least=0.99)
lesson.measured("validation accuracy with copies", with_copies, least=0.5, most=0.62)
lesson.measured("validation accuracy without copies", without, least=0.03, most=0.18)

# %% [markdown]
# The network knows nothing, and reports 55 %. Real data sets have copies: photographs that were uploaded twice, frames of one film, the
# ten scans of one patient. `find_duplicates` looks for them, exact ones and near ones. `firstlight inspect data RUN` calls it.

# %%
found = find_duplicates({"train": pool[rows], "val": pool[leaky]})
print("exact copies from train in val:", found.num(exact=True)["train", "val"], "of", num)
lesson.measured("planted copies that were found, share", found.num(exact=True)["train", "val"] / num, least=1, most=1)

# %% [markdown] kind="answer" name="patients" points=1
# A hospital has ten X-ray pictures of each of 500 patients. A friend shuffles the 5,000 pictures and holds out a tenth. No picture is
# there twice. Where is the leak, and how would you split?
#
# ### BEGIN SOLUTION
# Nearly every patient has pictures in both parts. The network can recognise the patient (bones, an implant, the machine) and remember the
# diagnosis, which does not help with a new patient. Split by patient: shuffle the 500, hold out 50, with all of their pictures.
# ### END SOLUTION

# %% [markdown]
# A quieter leak: mean and deviation of the pixels, by which images are normalised, measured over *all* images. firstlight measures them on
# the training part alone, and the run says which they were; we shall look at that below.
#
# ## Choosing is learning, too
#
# Now a thousand classifiers that answer at random. Score each on 200 validation images, and keep the best. **Predict:** how often is *that
# one* right on 100,000 fresh images?

# %% kind="predict" name="chosen"
### BEGIN SOLUTION
guess = 0.1
### END SOLUTION

# %%
answers = torch.randint(10, (1_000, 200), generator=drawn)
truth = torch.randint(10, (200,), generator=drawn)
scores = (answers == truth).float().mean(1)
chosen = scores.argmax().item()
fresh_answers = torch.randint(10, (100_000,), generator=drawn)
on_fresh = (fresh_answers == torch.randint(10, (100_000,), generator=drawn)).float().mean().item()
print(f"mean score of all {len(scores)}: {scores.mean():.3f}; best, number {chosen}: {scores.max():.3f}")
lesson.reveal(guess, on_fresh, "accuracy of the chosen one on fresh images")
lesson.measured("validation accuracy of the best of 1,000 that guess", scores.max(), least=0.14, most=0.22)
lesson.measured("its accuracy on fresh images", on_fresh, least=0.097, most=0.103)

# %% [markdown]
# Nothing leaked from image to image. **Choosing by a number makes that number too good.** Every comparison that you make on the
# validation part uses it up a little: the more choices and the fewer images, the more. That is why there is a third part.
#
# ## Early stopping
#
# One more thing to choose: when to stop. Train on few images for a long time, and watch both losses. `monitor` says by which figure the
# best epoch is chosen.

# %%
EPOCHS = lesson.on(mnist=lesson.pick(small=20, full=60), digits=lesson.pick(small=24, full=40))
BATCH_SIZE = lesson.on(mnist=25, digits=10)
settings = {
    "data": lesson.data,
    "split": {"num_train": NUM_TRAIN, "val_fraction": VAL_FRACTION},
    "optim": {"name": "adam", "lr": lesson.on(mnist=1e-3, digits=1e-2)},
    "schedule": "constant",
    "checkpoint": {"every": EPOCHS},  # the best epoch and the last are saved anyway
    "device": {"name": "cpu", "precision": "float32", "memory_format": "contiguous", "threads": 1},
    "runs_dir": "runs",
    "console": Console(quiet=True),
}
long_run = fl.train("mnist_mlp", train={"epochs": EPOCHS, "batch_size": BATCH_SIZE, "monitor": "val_loss"}, **settings)
lesson.show(plot_curves({f"{NUM_TRAIN} training images": long_run.epochs}), "overfitting")

# %%
best_epoch = long_run.summary["best_epoch"]
best_row, last_row = long_run.epochs[best_epoch - 1], long_run.epochs[-1]
print(f"best epoch by validation loss: {best_epoch} of {len(long_run.epochs)}")
lesson.measured("best epoch, as a share of all", best_epoch / EPOCHS, most=0.8)
lesson.measured("training loss at the last epoch over that at the best", last_row["train_loss"] / best_row["train_loss"], most=0.5)
lesson.measured("validation loss at the last epoch over that at the best", last_row["val_loss"] / best_row["val_loss"], least=1.03)
lesson.measured(
    "change of validation accuracy from the best to the last epoch", last_row["val_accuracy"] - best_row["val_accuracy"], least=-0.05
)

# %% [markdown]
# Training loss goes towards zero; validation loss turns round and climbs. This is **overfitting**. The accuracy does not fall with it: the
# network gives much the same answers, and gets ever surer of them, the wrong ones too. So the two figures choose different epochs. Watch
# the loss where you need probabilities that can be trusted, the accuracy where only the answer counts (`monitor` has both).
#
# **Patience:** stop when so many epochs in a row brought no better validation loss (Prechelt 1998). Then go back to the best epoch's
# weights. Write that loop. `one_epoch(model)` trains, `val_loss(model)` returns the loss to watch.
#
# Beware: `model.state_dict()` hands out the very tensors that training goes on to change.


# %% kind="exercise" name="patience"
def fit_with_patience(model, one_epoch, val_loss, max_epochs, patience):
    """Train until `patience` epochs in a row brought no lower loss, put the best epoch's weights back; return (best epoch, epochs done)."""
    best_loss, best_epoch, best_weights = math.inf, 0, {}
    ### BEGIN SOLUTION
    for epoch in range(1, max_epochs + 1):
        one_epoch(model)
        loss = val_loss(model)
        if loss < best_loss:
            best_loss, best_epoch = loss, epoch
            best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if epoch - best_epoch >= patience:
            break
    model.load_state_dict(best_weights)
    return best_epoch, epoch
    ### END SOLUTION


# %% kind="check" name="patience" points=3
def replay(losses, patience):
    """Run your loop on given validation losses; each epoch writes its number into the one weight. Return your answer and that weight."""
    counter = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(counter.weight)

    def one_epoch(model):
        with torch.no_grad():
            model.weight += 1

    answer = fit_with_patience(counter, one_epoch, lambda model: losses[round(model.weight.item()) - 1], len(losses), patience)
    return answer, round(counter.weight.item())


(best, done), weight = replay([3.0, 2.0, 1.0], patience=2)
assert (best, done) == (3, 3), f"of the losses 3, 2, 1 the third is the best and the last, and you say {best} of {done}"
(best, done), weight = replay([3.0, 2.0, 2.5, 2.4, 1.0], patience=2)
assert done == 4, f"losses 3, 2, 2.5, 2.4, ...: with a patience of 2 the training ends after epoch 4, not {done}"
assert best == 2, f"losses 3, 2, 2.5, 2.4: the best epoch is 2, not {best}"
assert weight != done, "the weights are those of the last epoch: were they cloned when they were best, and put back at the end?"
assert weight == 2, f"the weights are those of epoch {weight}, and should be those of the best one, 2"
(best, done), weight = replay([3.0, 2.0, 2.5, 1.0, 1.5, 1.5, 0.5], patience=2)
assert (best, done, weight) == (4, 6, 4), f"a better epoch starts the patience anew: best 4 of 6 here, and you have {best} of {done}"
(best, done), weight = replay([2.0, 2.0, 2.0, 1.0], patience=2)
assert (best, done) == (1, 3), f"an equal loss is no better one: best 1 of 3 here, and you have {best} of {done}"
print("fit_with_patience stops where it should and puts the best weights back")

# %% [markdown]
# The engine has the same rule (`judge` and `out_of_patience` in `firstlight/engine/loop.py`). Train again with `patience`, and let your
# loop walk over the losses of the long run.

# %%
PATIENCE = 5
stopped = fl.train("mnist_mlp", train={"epochs": EPOCHS, "batch_size": BATCH_SIZE, "monitor": "val_loss", "patience": PATIENCE}, **settings)
(your_best, your_last), _ = replay([row["val_loss"] for row in long_run.epochs], PATIENCE)
print(f"the engine: best epoch {stopped.summary['best_epoch']}, stopped after {len(stopped.epochs)} of {EPOCHS}")
print(f"your loop:  best epoch {your_best}, stopped after {your_last} of {EPOCHS}")
lesson.measured("difference of the best epochs", abs(your_best - stopped.summary["best_epoch"]), most=0)
lesson.measured("difference of the last epochs", abs(your_last - len(stopped.epochs)), most=0)
lesson.measured("share of the epochs that patience saved", 1 - len(stopped.epochs) / EPOCHS, least=0.1)
lesson.measured(
    "lowest validation loss with patience over that of the long run",
    min(row["val_loss"] for row in stopped.epochs) / min(row["val_loss"] for row in long_run.epochs),
    least=1,
    most=1.1,
)

# %% [markdown]
# ## Is it really the best epoch that is restored?
#
# Do not believe it: evaluate what was saved, and compare with what the run wrote down at that epoch. `which="last"` has the weights of the
# last epoch.

# %%
evaluated = {which: fl.evaluate(stopped.path, which=which) for which in ("best", "last")}
of_best, of_last = evaluated["best"]["loss"], evaluated["last"]["loss"]
best_epoch = stopped.summary["best_epoch"]
print(f"restored: epoch {best_epoch}, validation loss {of_best:.4f}; the last one has {of_last:.4f}")
written = {which: stopped.epochs[epoch - 1]["val_loss"] for which, epoch in (("best", best_epoch), ("last", len(stopped.epochs)))}
lesson.measured("restored loss against the row of the best epoch", abs(of_best - written["best"]), most=1e-5)
lesson.measured("last weights' loss against the row of the last epoch", abs(of_last - written["last"]), most=1e-5)
lesson.measured("loss of the last weights over that of the best", of_last / of_best, least=1.0001)

# %% [markdown]
# `fl.evaluate` sends every validation image through the network once, in eval mode (no dropout, batch norm's means held still) and without
# gradients. It says more than the loss: how often the right class is among the five likeliest, and for each class **precision** (of the
# images that were called a 3, how many are one), **recall** (of the 3s, how many were called one), and F1, the harmonic mean of both.
# **One accuracy hides ten classes.**

# %%
figures = evaluated["best"]
weakest = min(figures["classes"], key=lambda row: row["f1"])
print("the weakest class:", {name: round(value, 3) if isinstance(value, float) else value for name, value in weakest.items()})
lesson.measured("top-5 accuracy", figures["top_k_accuracy"], least=figures["accuracy"])
lesson.measured("F1 of the weakest class over the accuracy", weakest["f1"] / figures["accuracy"], most=0.99)

# %% [markdown]
# And the quieter leak from above: which pixels gave the mean by which images are normalised?

# %%
normalize = stopped.info["data"]["normalize"]
print("the run's record of its normalisation:", {name: [round(value, 4) for value in values] for name, values in normalize.items()})
of_train, of_val = train.images.mean().item(), val.images.mean().item()
lesson.measured("recorded mean against that of the training part", abs(normalize["mean"][0] - of_train), most=1e-6)
lesson.measured("recorded mean against that of the validation part", abs(normalize["mean"][0] - of_val), least=1e-5)

# %% [markdown]
# ## A file that runs code
#
# Python's `pickle` saves any object. A pickle is a small **program**: its instructions import functions and call them. Loading the file
# runs the program. The object below is harmless, it asks for `print`. It could ask for anything that Python can do.
# **Predict:** what comes out of `pickle.loads`: "a Surprise", "a text" or "None"?

# %% kind="predict" name="pickle"
### BEGIN SOLUTION
guess = "None"
### END SOLUTION


# %%
class Surprise:
    """An object that says how to build it again: by calling print."""

    def __reduce__(self):
        """Name a function and its arguments; pickle calls it when the file is read."""
        return print, ("    this line was printed by the file while it was being read",)


content = pickle.dumps(Surprise())
for opcode, argument, _ in pickletools.genops(content):  # reads the program without running it
    if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE", "STACK_GLOBAL", "REDUCE"):
        print(f"{opcode.name:17}", "" if argument is None else repr(argument))

# %%
print("reading the file:")
came_out = pickle.loads(content)  # we wrote these bytes ourselves, and looked at them
lesson.reveal(guess, str(came_out), "what came out")
assert not isinstance(came_out, Surprise)

# %% [markdown]
# STACK_GLOBAL imports `builtins.print`, REDUCE calls it. You get what the *call* returned. A file of weights from a stranger that is read
# this way can do whatever you can do. torch.save writes pickles as well. `torch.load(..., weights_only=True)`, the default since torch
# 2.6, allows only the few functions that build tensors, and refuses the rest before anything is called.

# %%
file = io.BytesIO()
torch.save({"linear1.weight": torch.zeros(2, 2), "extra": Surprise()}, file)
file.seek(0)
try:
    torch.load(file, weights_only=True)
    refused = False
except pickle.UnpicklingError as error:
    refused = True
    print("refused, and the message names what the file asked for:", "print" in str(error))
lesson.measured("the file with a surprise is refused", refused, least=1)

# %% [markdown]
# ## A file that cannot
#
# A **safetensors** file has no instructions in it at all. It is
#
# 1. eight bytes: the length of the header, a whole number, the lowest byte first ("little"),
# 2. the header, as JSON: for each tensor its `dtype`, its `shape`, and its `data_offsets` [begin, end],
# 3. the numbers, one after the other; the offsets count from the first byte behind the header.
#
# That is so plain that you can read it yourself. firstlight saves every checkpoint in it. Write the reader for float32 tensors
# (`torch.frombuffer(bytearray(...), dtype=torch.float32)` turns bytes into numbers).


# %% kind="exercise" name="read_tensor"
def read_tensor(content, name):
    """Return a float32 tensor by its name from the bytes of a safetensors file."""
    ### BEGIN SOLUTION
    start = 8 + int.from_bytes(content[:8], "little")
    entry = json.loads(content[8:start])[name]
    begin_at, end_at = entry["data_offsets"]
    return torch.frombuffer(bytearray(content[start + begin_at : start + end_at]), dtype=torch.float32).reshape(entry["shape"])
    ### END SOLUTION


# %% kind="check" name="read_tensor" points=2
checkpoint = find_checkpoint(stopped.path / "checkpoints", "best")
content = (checkpoint / "model.safetensors").read_bytes()
weights = load_safetensors(content)
for name, expected in weights.items():
    tensor = read_tensor(content, name)
    assert isinstance(tensor, torch.Tensor), f"read_tensor returns {type(tensor).__name__}, and should return a tensor"
    assert tensor.numel() == expected.numel(), f"{name} has {tensor.numel()} numbers, not {expected.numel()}: are both offsets used?"
    assert tensor.shape == expected.shape, f"{name} has shape {list(tensor.shape)}, the header says {list(expected.shape)}"
    assert torch.equal(tensor, expected), f"{name} has other numbers: the offsets count from behind the header, not from the file's start"
print("read by hand:", ", ".join(f"{name} {list(weights[name].shape)}" for name in sorted(weights)))

# %% [markdown]
# ## Into the right network, or into none
#
# A file of weights knows names and shapes. The network has to fit. Our run's network has hidden layers of 128 and 64 units. Put its
# weights into one with 128 and **32**. Each layer has a weight [outputs, inputs] and a bias [outputs]. **Predict:** how many of the six
# tensors do not fit?

# %% kind="predict" name="differences"
### BEGIN SOLUTION
guess = 3
### END SOLUTION

# %%
other = MLP(image_shape, 10, hidden=(128, 32))
try:
    load_weights(other, read_weights(checkpoint), checkpoint)
    message = ""
except CheckpointError as error:
    message = str(error).replace(str(checkpoint), "RUN/checkpoints/step-N")
    print("CheckpointError:", message)
named = [name for name in weights if f"{name} is" in message]
lesson.reveal(guess, len(named), "tensors that do not fit")
lesson.measured("tensors named in the message", len(named), least=3, most=3)

# %% [markdown]
# It fails, at once, and says where. PyTorch can be told to be silent instead: `load_state_dict(..., strict=False)` takes what fits by name
# and leaves the rest as it was, drawn at random. Here every name has the prefix that a wrapper (`nn.DataParallel`) leaves behind.

# %%
wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
torch.manual_seed(0)
silent = MLP(image_shape, 10)
silent.load_state_dict(wrapped, strict=False)
mean, std = normalize["mean"][0], normalize["std"][0]
pixels = (val.images - mean) / std
of_silent = accuracy(silent, pixels, val.labels)
lesson.measured("accuracy after strict=False: the network still knows nothing", of_silent, most=0.35)

# %% [markdown]
# The other way round, no class file is needed. A run's config says which network it was, and `fl.load_model` builds it and fills it. Feed
# it what it was trained on: pixels normalised as the run says.

# %%
loaded = fl.load_model(stopped.path)
of_loaded = accuracy(loaded, pixels, val.labels)
lesson.measured("accuracy of the loaded network", of_loaded, least=0.8)
lesson.measured("its loss against the record of the best epoch", abs(mean_loss(loaded, pixels, val.labels) - written["best"]), most=1e-4)

# %% [markdown]
# ## The sealed test set
#
# Everything is chosen: the network, the learning rate, the epoch. Nobody has seen the test images: `firstlight train` and `firstlight
# sweep` cannot read them. The run says how often they were opened.

# %%
print("openings of the test set so far:", stopped.info["test_openings"])
assert stopped.info["test_openings"] == []
print(f"validation accuracy: {stopped.summary['val_accuracy']:.4f}")

# %% [markdown]
# **Predict:** the accuracy on the test set.

# %% kind="predict" name="test_accuracy"
### BEGIN SOLUTION
guess = stopped.summary["val_accuracy"]
### END SOLUTION

# %%
test = fl.evaluate(stopped.path, split="test")
lesson.reveal(guess, test["test_accuracy"], "test accuracy")
num_images = lesson.on(mnist=10_000, digits=359)
error_bar = 2 * math.sqrt(test["test_accuracy"] * (1 - test["test_accuracy"]) / num_images)
print(f"with {num_images:,} images, two standard errors are {error_bar:.4f}")
lesson.measured("test accuracy", test["test_accuracy"], least=0.8)
lesson.measured("test against validation accuracy", abs(test["test_accuracy"] - stopped.summary["val_accuracy"]), most=0.06)

# %%
opening = fl.load_run(stopped.path).info["test_openings"]
print("what the run says now:", [{key: value for key, value in entry.items() if key != "when"} for entry in opening])
lesson.measured("openings", len(opening), least=1, most=1)

# %% [markdown]
# The record cannot be forgotten: it has the time as well, and a report of the run says it. `train.test_at_end: true` does the same at the
# end of a training, with the best weights.

# %% [markdown] kind="answer" name="once" points=2
# A friend trains 200 networks, opens the test set for each, and reports the best test accuracy. No network was trained on a test image.
# What is wrong with the number, which cell of this lesson shows it, and what should they have done?
#
# ### BEGIN SOLUTION
# They chose by the test set, so it became a second validation set, and its best score is too high by luck, as with the best of the
# thousand classifiers that guess: the best scored well above 0.1, and was right one time in ten on fresh images. They should choose by
# validation, open the test set once for that one network, and report that number, whatever it is.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# - `firstlight/data/splits.py`: the stratified split and its hash; `split.val_fraction` and `split.seed` set it.
# - `firstlight/engine/loop.py`: `judge` and `out_of_patience`; `firstlight train mnist_mlp train.patience=5 train.monitor=val_loss`.
# - `firstlight/engine/checkpoint.py`: step folders of safetensors with their checksums, and the pointers `best` and `last`.
# - `firstlight/engine/init_from.py`: begin with weights from elsewhere (`train.init_from`). A .pt file is read by a process of its own.
# - `firstlight/engine/sealed.py`: the one place that reads the test set with its labels; `firstlight evaluate RUN --split test`.
# - `firstlight inspect data RUN` looks for copies between the parts.
