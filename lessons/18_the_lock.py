# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: "The lock: a network that other programs use"
#     minutes: 2
#     shows: [E12, E13]
# ---

# %% [markdown]
# # The lock: a network that other programs use
#
# **You will learn** to hand a trained network to a program that has no PyTorch and to prove that it answers the same; why the place of a
# drawing on its sheet decides whether it is read, and what MNIST's makers did about it; and how a secret of four digits is kept.
#
# **Before:** lesson 13 (convolutions). **Takes** about two minutes.
#
# **Comes from** a course's last exercise, a lock that opens when its code is drawn by hand; the images are made as LeCun, Bottou, Bengio
# and Haffner (1998) describe in section III.A; the hash is Percival (2009), *Stronger key derivation via sequential memory-hard functions*.

# %%
import hashlib
import importlib.util
import json
import time

import numpy as np
import torch
from PIL import Image, ImageDraw

import firstlight as fl
from firstlight.dashboard.lock import COST, FIRST_WAIT, FREE_FAILURES, LONGEST_WAIT, Lock
from firstlight.dashboard.lock_page import open_with
from firstlight.dashboard.strokes import as_mnist, draw
from firstlight.engine.restore import normalize_of
from firstlight.errors import ConfigError
from firstlight.export.export import export
from firstlight.export.parity import compare
from firstlight.export.reader import Reader
from firstlight.files import make_dir
from firstlight.notebooks.lesson import begin
from firstlight.plotting.curves import plot_curves
from firstlight.plotting.images import plot_images, plot_predictions

lesson = begin("the_lock")
with_onnx = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
if not with_onnx:
    print('onnx is not installed (`pip install "firstlight[onnx]"`): the network is asked through PyTorch instead')

# %% [markdown]
# ## A network that reads digits
#
# Where MNIST is absent, the package's 8 x 8 digits are first made into images as MNIST has them (`as_mnist`, of which more below).

# %%
if lesson.data == "digits":
    small = fl.load_data("digits")
    folder = lesson.fresh("digits_as_mnist")
    for place in range(lesson.pick(small=600, full=len(small))):
        name = make_dir(folder / str(int(small.labels[place]))) / f"{place:04}.png"
        Image.fromarray(as_mnist(small.pixels(place))).save(name)
data = lesson.on(mnist={"name": "mnist"}, digits={"name": "folder", "path": "runs/the_lock/digits_as_mnist"})
run = lesson.train(
    "reader",
    "mnist_cnn",
    data=data,
    split={
        "num_train": lesson.on(mnist=lesson.pick(small=2_000, full=20_000), digits=None),
        "val_fraction": lesson.on(mnist=0.02, digits=0.1),
    },
    augment={"rotation": 10.0, "crop": 2},
    model={"name": "small_cnn", "widths": [16, 32, 64]},
    optim={"name": "adamw", "lr": 5e-3, "weight_decay": 0.0},
    train={"epochs": lesson.pick(small=lesson.on(mnist=3, digits=10), full=lesson.on(mnist=4, digits=25)), "batch_size": 64},
)
lesson.show(plot_curves({"reader": run.epochs}), "curves")
lesson.measured("validation accuracy", run.summary["val_accuracy"], least=lesson.pick(small=0.8, full=0.95))

# %% [markdown]
# ## Out of PyTorch
#
# A program that reads digits should need neither PyTorch nor this package's code. **ONNX** is a format for the graph of a network:
# operations and weights, no code. Many programs run it, also on phones and in browsers.
#
# A network is only half of what reads an image: pixels were normalised before it saw them. **Predict:** what does the exported graph take,
# "pixels" as they are in an image file, or "normalised" numbers?

# %% kind="predict" name="input"
### BEGIN SOLUTION
guess = "pixels"
### END SOLUTION

# %%
with torch.no_grad():
    asked = fl.load_data(**{"name": data["name"], **({"path": data["path"]} if "path" in data else {})}).subset(torch.arange(200))
    wanted = fl.load_model(run)(normalize_of(run).apply(asked.images)).numpy()


class InTorch:
    """What stands in for the exported file where onnx is not installed."""

    def logits(self, images):
        with torch.no_grad():
            return fl.load_model(run)(normalize_of(run).apply(torch.tensor(images))).numpy()

    def probabilities(self, images):
        return torch.from_numpy(self.logits(images)).softmax(1).numpy()


if with_onnx:
    made = export(run.path, ["onnx"])
    file = made["exports"][0]["file"]
    print(f"{file}: {made['exports'][0]['bytes'] / 1000:.0f} kB, checked on {made['num_images']} {made['images']}")
    reader = Reader(file)
    lesson.reveal(guess, "pixels" if reader.description.pixels == "uint8" else "normalised", "the graph takes")
    print("mean and deviation inside:", [round(value, 4) for value in (*reader.description.mean, *reader.description.std)])
else:
    reader = InTorch()

# %% [markdown]
# ## Prove that it answers the same
#
# A file that answers *nearly* the same is no copy. Compare on real images: the probabilities of all classes within $10^{-5}$, and every
# class the same. Mind the trap: a broken file answers `nan`, and every comparison with `nan` is false. Write the test so that this fails
# it.


# %% kind="exercise" name="agree"
def agree(wanted, found, tolerance=1e-5):
    """Tell whether two sets of probabilities, float [N, K], have the same likeliest classes and differ by no more than the tolerance."""
    ### BEGIN SOLUTION
    same_classes = (wanted.argmax(1) == found.argmax(1)).all()
    return bool(same_classes and np.abs(wanted - found).max() <= tolerance)
    ### END SOLUTION


# %% kind="check" name="agree" points=1
right = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
assert agree(right, right.copy()), "the same probabilities are said to differ"
assert not agree(right, right - 0.001), "a difference of 0.001 is more than the tolerance"
assert not agree(right, right + 0.001), "a difference of -0.001 is more than the tolerance: take its size"
assert not agree(right[:1], np.full((1, 3), np.nan)), (
    "nan is taken for agreement: ask whether the difference is small, not whether it is large"
)
close = np.array([[0.5000001, 0.4999999]])
assert not agree(close, close[:, ::-1]), "two classes changed places within the tolerance: compare the likeliest classes, too"
print("agreement is told from everything else")

# %%
found = reader.logits(asked.images.numpy())
probabilities = torch.from_numpy(wanted).softmax(1).numpy()
assert agree(probabilities, reader.probabilities(asked.images.numpy()))
parity = compare(found, wanted)
lesson.measured("largest difference of a probability on 200 images", parity.max_probability_difference, most=1e-5)
lesson.measured("images with another class", parity.num_other_classes, most=0)

# %% [markdown]
# ## Draw
#
# A drawing is a list of strokes, a stroke a list of points $(x, y)$ from 0 to 1, from the upper left corner of its pad. Here are ten
# digits, as a browser would send them.


# %%
def arc(x, y, wide, tall, start, end, steps=24):
    """Return points on an ellipse; angles in quarter turns, clockwise from the top."""
    angles = np.linspace(start, end, steps) * np.pi / 2
    return [(float(x + wide * np.sin(angle)), float(y - tall * np.cos(angle))) for angle in angles]


STROKES = {
    0: [arc(0.5, 0.5, 0.2, 0.32, 0, 4)],
    1: [[(0.42, 0.28), (0.53, 0.17), (0.53, 0.83)]],
    2: [[*arc(0.5, 0.34, 0.2, 0.17, -1, 1.4), (0.3, 0.82), (0.74, 0.82)]],
    3: [[*arc(0.47, 0.33, 0.2, 0.16, -0.8, 2), *arc(0.47, 0.66, 0.23, 0.18, 0, 2.9)]],
    4: [[(0.4, 0.17), (0.26, 0.56), (0.76, 0.56)], [(0.62, 0.34), (0.6, 0.84)]],
    5: [[(0.7, 0.18), (0.38, 0.18), (0.35, 0.46), *arc(0.47, 0.62, 0.22, 0.2, 0, 2.8)]],
    6: [[(0.6, 0.16), (0.42, 0.36), *arc(0.48, 0.64, 0.18, 0.19, 3, 7)]],
    7: [[(0.27, 0.2), (0.73, 0.2), (0.46, 0.84)]],
    8: [[*arc(0.5, 0.33, 0.16, 0.15, 2, -2), *arc(0.5, 0.66, 0.19, 0.18, 0, 4)]],
    9: [[*arc(0.5, 0.36, 0.18, 0.19, 1, 5), (0.66, 0.6), (0.6, 0.84)]],
}
SIDE = 280


def on_the_pad(strokes, scale=1.0, right=0.0, down=0.0):
    """Return the ink on a pad, uint8 [280, 280], of strokes that are made smaller and moved."""
    pad = Image.new("L", (SIDE, SIDE))
    pen, width = ImageDraw.Draw(pad), max(round(26 * scale), 2)
    for stroke in strokes:
        places = [((right + scale * x) * SIDE, (down + scale * y) * SIDE) for x, y in stroke]
        pen.line(places, fill=255, width=width)
        for x, y in places:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return np.asarray(pad)


def read(images):
    """Return the digit that the network reads in each of some images, uint8 [28, 28]."""
    return reader.probabilities(np.stack(images)[:, None]).argmax(1)


pads = [on_the_pad(strokes) for strokes in STROKES.values()]
lesson.show(plot_images(pads, [str(digit) for digit in STROKES], title="Ten drawings"), "drawings")

# %% [markdown]
# ## As MNIST has them
#
# MNIST's makers scaled each digit into a box of 20 x 20 pixels, its shape kept, and put it into 28 x 28 so that its **centre of mass**
# stands at pixel (14, 14): not the middle of its outline, but the mean place of its ink. Write the second half of that. The corner where
# the small image goes is $14 - m$, rounded, with $m$ the mean row (column) of its ink; where there is no room for that, it goes to the
# edge.


# %% kind="exercise" name="centred"
def centred(small):
    """Return uint8 [28, 28] with an image of ink [h, w] put so that its centre of mass stands at (14, 14), as far as there is room."""
    found = np.zeros((28, 28), np.uint8)
    height, width = small.shape
    ### BEGIN SOLUTION
    ink = small.astype(float)
    rows, columns = ink.sum(1), ink.sum(0)
    top = round(14 - float((rows * np.arange(height)).sum() / ink.sum()))
    left = round(14 - float((columns * np.arange(width)).sum() / ink.sum()))
    top, left = min(max(top, 0), 28 - height), min(max(left, 0), 28 - width)
    found[top : top + height, left : left + width] = small
    ### END SOLUTION
    return found


# %% kind="check" name="centred" points=2
lopsided = np.zeros((20, 10), np.uint8)
lopsided[:, 0], lopsided[0, :] = 255, 120
placed = centred(lopsided)
assert placed.shape == (28, 28) and placed.any(), "nothing was put into the image of 28 x 28"
assert int(placed.astype(int).sum()) == int(lopsided.astype(int).sum()), "ink was lost or made: all of the small image has its place"
in_the_middle = np.zeros((28, 28), np.uint8)
in_the_middle[4:24, 9:19] = lopsided
assert not np.array_equal(placed, in_the_middle), "that centres the outline: it is the mean place of the ink that goes to (14, 14)"
mass = [float((placed.sum(1 - axis, dtype=float) * np.arange(28)).sum() / placed.sum(dtype=float)) for axis in (0, 1)]
assert max(abs(place - 14) for place in mass) <= 0.5, f"the centre of mass stands at ({mass[0]:.1f}, {mass[1]:.1f}), and should at (14, 14)"
heavy = np.zeros((20, 20), np.uint8)
heavy[:, 0] = heavy[0, 19] = 255
assert centred(heavy).any() and centred(heavy)[:, 8:].any(), "an image with its weight at an edge goes as far as there is room"
for digit, strokes in STROKES.items():
    expected = as_mnist(on_the_pad(strokes))
    rows, columns = np.flatnonzero(expected.any(1)), np.flatnonzero(expected.any(0))
    cut = expected[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    apart = np.abs(centred(cut).astype(int) - expected).max()
    assert apart == 0, f"the {digit} stands elsewhere than firstlight/dashboard/strokes.py puts it"
print("ten digits stand where firstlight.dashboard.strokes puts them")

# %% [markdown]
# Now somebody draws small, and not in the middle. All drawings below are made smaller and moved at random, inside their pads. They are read
# twice: the whole pad scaled down to 28 x 28, and made as MNIST has it. **Predict** the share that is read right without centring.

# %% kind="predict" name="off_centre"
### BEGIN SOLUTION
guess = lesson.on(mnist=0.5, digits=0.15)
### END SOLUTION

# %%
random = np.random.default_rng(0)
drawings, truth = [], []
for number in range(lesson.pick(small=50, full=200)):
    scale = random.uniform(0.2, 0.6)
    right, down = random.uniform(-0.1 * scale, 1 - 0.9 * scale, 2)
    drawings.append(on_the_pad(STROKES[number % 10], scale, right, down))
    truth.append(number % 10)
truth = np.array(truth)
ways = {"whole pad": [as_mnist(ink, centre=False) for ink in drawings], "as MNIST": [as_mnist(ink) for ink in drawings]}
answers = {name: read(images) for name, images in ways.items()}
shares = {name: float((answer == truth).mean()) for name, answer in answers.items()}
lesson.reveal(guess, shares["whole pad"], "share read right without centring")
lesson.measured(
    "share read right as MNIST has them", shares["as MNIST"], least=lesson.pick(small=0.45, full=lesson.on(mnist=0.85, digits=0.6))
)
lesson.measured("gain of scaling and centring", shares["as MNIST"] - shares["whole pad"], least=0.2)

# %%
shown = range(5)
sheet = [image for name in ways for image in (ways[name][place] for place in shown)]
guesses = [str(answers[name][place]) for name in ways for place in shown]
sure = [float(reader.probabilities(image[None, None]).max()) for image in sheet]
labels = [str(truth[place]) for _ in ways for place in shown]
lesson.show(plot_predictions(sheet, labels, guesses, sure, title="The same drawings: whole pad above, as MNIST has them below"), "read")

# %% [markdown] kind="answer" name="not_the_network" points=2
# One could also have trained the network on small digits anywhere on the pad (augmentation). What speaks for scaling and centring instead,
# and when would augmentation be the better way?
#
# ### BEGIN SOLUTION
# Scaling and centring costs nothing to learn: the network sees one size at one place, so that all of its parameters and training images go
# into telling shapes apart, and the drawing keeps its resolution where a whole pad of 280 pixels would leave a small digit three pixels
# high. It needs ink that can be told from the background. In a photo, with clutter or several digits, nothing can be measured so, and the
# network must learn to find the digit.
# ### END SOLUTION

# %% [markdown]
# ## The code
#
# The lock must know its code and should not tell it to whoever reads its file. So it keeps a *hash*: a function that is easily computed and
# cannot be turned round. As there are only 10,000 codes, anybody could hash them all beforehand; a *salt*, random bytes beside the hash,
# makes such a list worthless, and `scrypt` makes each try cost 16 MiB and some time. Write it: scrypt of the code's bytes with the salt and
# the `COST` of `firstlight/dashboard/lock.py`, 32 bytes long, as hexadecimal text.


# %% kind="exercise" name="hashed"
def hashed(code, salt):
    """Return the hash of a code (text) with a salt (bytes), 64 hexadecimal digits."""
    ### BEGIN SOLUTION
    return hashlib.scrypt(code.encode(), salt=salt, dklen=32, **COST).hex()
    ### END SOLUTION


# %% kind="check" name="hashed" points=1
lock = Lock(lesson.fresh("lock") / "code.json")
lock.set_code("4071")
kept = json.loads(lock.path.read_text())
salt = bytes.fromhex(kept["salt"])
assert hashed("4071", salt) != "4071", "the code itself is kept"
assert hashed("4071", salt) != hashed("4072", salt), "two codes have the same hash"
assert hashed("4071", salt) != hashed("4071", b"another salt ...") or not salt, "the salt changes nothing"
assert len(hashed("4071", salt)) == 64, f"{len(hashed('4071', salt))} characters: 32 bytes are 64 hexadecimal digits"
assert hashed("4071", salt) == kept["hash"], "the lock has another hash of the same code and salt: are n, r and p those of COST?"
print("the lock's own hash; its file holds", ", ".join(sorted(kept)))

# %% [markdown]
# Somebody stands before the lock and tries all codes. Five wrong ones are free; then each costs a wait, 2 seconds, 4, 8, ... up to 300.
# **Predict:** how many days do all 10,000 codes take?

# %% kind="predict" name="days"
### BEGIN SOLUTION
guess = 34.7
### END SOLUTION

# %%
waits = [min(FIRST_WAIT * 2.0 ** min(number, 60), LONGEST_WAIT) for number in range(10_000 - FREE_FAILURES)]
lesson.reveal(guess, sum(waits) / 86_400, "days for all codes")
lesson.measured("MiB that one hash needs", 128 * COST["n"] * COST["r"] / 2**20, least=16, most=16)
lesson.measured("days for all codes at the lock", sum(waits) / 86_400, least=30, most=40)

# %% [markdown]
# Whoever has the *file* does not wait. How long does one hash take on this machine?

# %% varies=true
began = time.perf_counter()
hashed("0000", salt)
seconds = time.perf_counter() - began
print(f"one hash: {1000 * seconds:.0f} ms; all 10,000 codes: {10_000 * seconds / 60:.0f} minutes")

# %% [markdown] kind="answer" name="file" points=1
# So the file protects a code of four digits for minutes, not for years. Name two things that would help more than a slower hash.
#
# ### BEGIN SOLUTION
# A longer code (each digit makes ten times as many), and keeping the file where only its owner can read it, as the lock does. The hash is
# the last wall, not the first; and nobody should use the code of a bank card here.
# ### END SOLUTION

# %% [markdown]
# ## All of it
#
# Four pads, drawn small and off-centre, are sent; the strokes become images as MNIST has them; the network reads; the lock opens for its
# code alone. The page of `firstlight lock` calls this very function, `open_with`. A digit that is read with less than 50 % is no try. Which
# code? Four digits of which the network is sure when they are drawn so.


# %%
def moved(digit, place):
    """Return the strokes of a digit, at half its size, in a corner of its pad."""
    right, down = ((0.05, 0.05), (0.45, 0.05), (0.05, 0.45), (0.45, 0.45))[place]
    return [[[right + 0.5 * x, down + 0.5 * y] for x, y in stroke] for stroke in STROKES[digit]]


drawn = reader.probabilities(np.stack([as_mnist(draw(moved(digit, 0))) for digit in STROKES])[:, None])
sure_of = {digit: float(drawn[digit, digit]) for digit in STROKES}
surest = sorted(sure_of, key=lambda digit: -sure_of[digit])[:4]
chosen = (sorted(digit for digit in surest if sure_of[digit] > 0.6) * 4)[:4]
code = "".join(map(str, chosen))
lock.set_code(code)
told = open_with(lock, reader, {"pads": [moved(digit, place) for place, digit in enumerate(chosen)]})
print(told["says"])
assert told["open"]

# %%
backwards = chosen[::-1]
told = open_with(lock, reader, {"pads": [moved(digit, place) for place, digit in enumerate(backwards)]})
print(told["says"])
assert not told["open"]
try:
    open_with(lock, reader, {"pads": [moved(digit, 0) for digit in chosen[:2]] + [[], []]})
except ConfigError as error:
    print(error)
else:
    raise AssertionError("two drawn digits were taken for four")
for _ in range(FREE_FAILURES - 1):
    told = open_with(lock, reader, {"pads": [moved(digit, place) for place, digit in enumerate(backwards)]})
print(told["says"])
assert 0 < told["wait_seconds"] <= FIRST_WAIT and not told["open"]

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/export/export.py` writes a file only after it has answered as the run does; `firstlight/dashboard/strokes.py` makes the
# images, `lock.py` keeps the code, `lock_page.py` opens.
#
# - `firstlight export RUN --format onnx` writes the file, `firstlight predict FILE.onnx photo.png` asks it, without PyTorch.
# - `firstlight lock` serves the page on this machine: set a code, draw it, see it open.
# - `firstlight lock --reader runs/the_lock/reader/export/reader.onnx` does so with the network of this lesson. docs/lock.md says the rest.
