# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Data larger than memory, and a submission that counts
#     minutes: 2
#     shows: [D8, D21]
# ---

# %% [markdown]
# # Data larger than memory, and a submission that counts
#
# **You will learn** to train on a file that is never loaded whole: to look into it, to measure its pixels piece by piece, to shuffle what
# cannot be shuffled; then to hand in answers to images whose labels nobody gave you, in a file that is not refused, and to say beforehand
# what they will score.
#
# **Before:** lesson 12 (validation) and lesson 16 (configs). **Takes** about a minute. It makes its own images, so it needs no MNIST.
#
# **Comes from** the course project on Medium ImageNet, 200 classes in one HDF5 file of 41 GB, and its leaderboard; the interval is Wilson
# (1927), *Probable inference*.

# %%
import importlib.util
import math
import time
from statistics import NormalDist

import numpy as np
import torch
from PIL import Image

import firstlight as fl
from firstlight.data.generate import generate_hdf5
from firstlight.data.normalize import channel_statistics
from firstlight.errors import FirstlightError
from firstlight.export.submission import Wanted, check_submission, judge_score, score_interval, submit
from firstlight.files import make_dir, write_text
from firstlight.inspection.opened import opened
from firstlight.metrics.evaluation import wilson_interval
from firstlight.notebooks.lesson import begin
from firstlight.plotting.curves import plot_curves
from firstlight.plotting.images import plot_images
from firstlight.plotting.style import color_of, new_figure, tidy

lesson = begin("large_data")
with_hdf5 = importlib.util.find_spec("h5py") is not None
if not with_hdf5:
    print('h5py is not installed (`pip install "firstlight[hdf5]"`): cells about the file are left out, and digits take its place')

# %% [markdown]
# ## How large is large?
#
# Medium ImageNet has about 1.5 million images of 96 x 96 pixels in three colours, a byte each. **Predict:** how many GB (of $10^9$ bytes)
# is that?

# %% kind="predict" name="gigabytes"
### BEGIN SOLUTION
guess = 1.5e6 * 96 * 96 * 3 / 1e9
### END SOLUTION

# %%
lesson.reveal(guess, 1_500_000 * math.prod((96, 96, 3)) / 1e9, "GB of pixels")

# %% [markdown]
# As float32 numbers it would be four times that. So: bytes stay bytes, and stay in their file.
#
# ## A small file of the same layout
#
# An HDF5 file holds arrays by name. Anyone can read any rows of any array. The cell below makes one as `firstlight data generate FILE.h5`
# does: textured shapes on coloured ground. Then it looks inside, without reading a pixel.

# %%
path = lesson.fresh("made.h5")
num_images, size, num_classes = lesson.pick(small=(1_600, 24, 40), full=(6_000, 32, 200))
if with_hdf5:
    import h5py

    generate_hdf5(path, lambda what, done, total: None, num_images=num_images, size=size, num_classes=num_classes)
    with h5py.File(path) as file:
        for key in ("images-train", "images-val", "images-test", "labels-train", "labels-val", "class-names"):
            print(f"{key:<14}{file[key].dtype!s:<8}{list(file[key].shape)}")
        assert "labels-test" not in file
    part = fl.load_data("medium_imagenet", path=str(path), stream="on")
    print(type(part.images).__name__, list(part.images.shape), f"{path.stat().st_size / 1e6:.1f} MB on disk")

# %% [markdown]
# There are no labels for the test images: only the organisers have them. `part.images` has the shape and the indexing of a tensor, and
# reads what is asked for. Here are a few, with the names of their classes.

# %%
if with_hdf5:
    pictures = [part.images[place].permute(1, 2, 0).numpy() for place in range(10)]
    titles = [part.class_names[label] for label in part.labels[:10]]
    lesson.show(plot_images(pictures, titles, title="Ten of the training images"), "images")

# %% [markdown]
# ## Measure what you cannot hold
#
# Normalisation needs the mean and the standard deviation of each channel. With blocks of images that come one after the other, keep three
# numbers a channel: how many pixels, their sum, the sum of their squares. Then mean $= S / n$ and variance $= Q / n -$ mean$^2$. Mind two
# traps: blocks of different size, and bytes, whose squares do not fit into a byte.


# %% kind="exercise" name="streamed_statistics"
def streamed_statistics(blocks):
    """Return mean and standard deviation of each channel, float64 [C], of pixels in [0, 1]. blocks: yields uint8 [n, C, H, W]."""
    count, total, squares = 0, 0.0, 0.0
    for block in blocks:
        ### BEGIN SOLUTION
        pixels = block.double() / 255
        count += pixels.numel() // pixels.shape[1]
        total = total + pixels.sum(dim=(0, 2, 3))
        squares = squares + pixels.square().sum(dim=(0, 2, 3))
        ### END SOLUTION
    mean = total / count
    return mean, (squares / count - mean**2).sqrt()


# %% kind="check" name="streamed_statistics" points=2
generator = torch.Generator().manual_seed(0)
stack = torch.randint(0, 256, (50, 3, 6, 5), generator=generator, dtype=torch.uint8)
stack[:10] //= 4  # the first images are darker
expected = channel_statistics(stack)
mean, std = streamed_statistics(iter(stack.split([10, 33, 7])))
assert mean.shape == (3,), f"the mean has the shape {list(mean.shape)}: a number a channel, the sums go over images, rows and columns"
assert mean.max() < 2, "pixels run from 0 to 255: divide them by 255 first"
of_means = torch.stack([channel_statistics(some)[0] for some in stack.split([10, 33, 7])]).mean(0)
assert (mean - of_means).abs().max() > 1e-3, "that is the mean of the blocks' means: the blocks are not equally large"
assert not std.isnan().any(), "a variance is negative: squares of bytes wrap around at 256, so make floats of them first"
assert (mean - expected[0]).abs().max() < 1e-9, "the mean differs from firstlight.data.normalize"
assert (std - expected[1]).abs().max() < 1e-9, "the deviation differs from firstlight.data.normalize"
print("the same numbers as channel_statistics has of the whole, to", f"{(std - expected[1]).abs().max():.0e}")

# %%
if with_hdf5:
    mean, std = streamed_statistics(part.images.split(256))
    print("mean", [round(value, 4) for value in mean.tolist()], "deviation", [round(value, 4) for value in std.tolist()])

# %% [markdown]
# ## Shuffle what does not fit
#
# In each epoch the images should come in a new order. Reading them one by one from all over the file is slow: each read costs a way through
# the library and, on a real disk, a wait. Reading *blocks* of neighbours is fast, but neighbours would come together. So do both: blocks in
# a random order; read some of them at once into memory (a *window*); shuffle the images of the window.
#
# Write this order. Block $b$ holds the images $b \cdot$ `block_size` up to the next block; the last one may be shorter.


# %% kind="exercise" name="block_order"
def block_order(num_images, block_size, blocks_in_window, generator):
    """Return all places 0..num_images-1, int64, in an order made of shuffled windows of whole blocks."""
    blocks = list(torch.arange(num_images).split(block_size))
    shuffled = [blocks[place] for place in torch.randperm(len(blocks), generator=generator)]
    order = []
    for first in range(0, len(shuffled), blocks_in_window):
        ### BEGIN SOLUTION
        window = torch.cat(shuffled[first : first + blocks_in_window])
        order.append(window[torch.randperm(len(window), generator=generator)])
        ### END SOLUTION
    return torch.cat(order)


# %% kind="check" name="block_order" points=2
seeded = torch.Generator().manual_seed
order = block_order(1_003, 10, 8, seeded(3))
assert len(order) == 1_003, f"{len(order)} images come, and 1,003 are there"
assert torch.equal(order.sort().values, torch.arange(1_003)), "an image comes twice, and another never"
assert torch.equal(order, block_order(1_003, 10, 8, seeded(3))), "the same seed gave another order: draw from the generator"
assert not torch.equal(order, block_order(1_003, 10, 8, seeded(4))), "another seed gave the same order"
window = order[:70] // 10
assert len(window.unique()) <= 8, f"the first images come from {len(window.unique())} blocks: a window holds 8, more must be read"
runs = (order[1:] - order[:-1] == 1).float().mean()
assert runs < 0.2, f"{runs:.0%} of the images come behind their neighbour in the file: the images inside a window are not shuffled"
print("1,003 images, each once; a window holds 8 blocks")

# %% [markdown]
# **Predict:** how many times as fast are blocks of 64 images as images one by one, on this file?

# %% kind="predict" name="faster"
### BEGIN SOLUTION
guess = lesson.pick(small=70.0, full=25.0)
### END SOLUTION

# %% varies=true
if with_hdf5:
    asked = torch.randperm(len(part), generator=seeded(0))[: lesson.pick(small=300, full=1_000)].sort().values
    with h5py.File(path) as file:
        began = time.perf_counter()
        for place in asked.tolist():
            file["images-train"][place]
        one_by_one = (time.perf_counter() - began) / len(asked)
    began = time.perf_counter()
    for _ in part.images.split(64):
        pass
    in_blocks = (time.perf_counter() - began) / len(part)
    print(f"{1e6 * one_by_one:.0f} us an image one by one, {1e6 * in_blocks:.1f} us in blocks, from the memory of the system's files")
    lesson.reveal(guess, one_by_one / in_blocks, "blocks are faster by a factor of")
    lesson.measured("time of an image by itself over one in a block", one_by_one / in_blocks, least=1.5)

# %% [markdown]
# ## Train on the file
#
# `data.stream=on` leaves the pixels in the file; `auto`, the default, does so where they take more than a quarter of the memory. The file
# brings its own validation part. `buffer_mib` is the memory in which windows are shuffled.

# %%
network = {"name": "small_cnn", "widths": lesson.pick(small=[16, 32], full=[16, 32, 64])}
train = {"epochs": lesson.pick(small=4, full=3), "batch_size": 64}
if with_hdf5:
    config, data = "resnet18_medium_imagenet", {"name": "medium_imagenet", "path": str(path), "stream": "on", "buffer_mib": 4}
    seen = {"input": {"image_size": None, "num_classes": num_classes}, "augment": {"flip": False, "crop": 2}}
else:
    config, data, seen = "quickstart", "digits", {}
optim = {"name": "adamw", "lr": 5e-3, "weight_decay": 0.0}
run = lesson.train("large", config, data=data, model=network, train={**train, "test_at_end": False}, optim=optim, **seen)
print(run.info["data"]["source"].replace(path.parent.as_posix() + "/", ""))
lesson.show(plot_curves({"large": run.epochs}), "curves")
lesson.measured("validation accuracy", run.summary["val_accuracy"], least=0.5)

# %% [markdown]
# ## Hand in
#
# A competition gives a sample: a file with the right header and the right ids, and some label everywhere. What is handed in must have the
# same header, the same ids in the same order, and your labels. Most refused submissions fail at this.

# %%
images = []
if with_hdf5:
    num_test = len(fl.load_data("medium_imagenet", "test", path=str(path)))
else:
    with opened(run.path, "val") as look:
        hidden = look.dataset
    num_test, folder = len(hidden), make_dir(lesson.fresh("test_images"))
    for place in range(num_test):
        Image.fromarray(hidden.pixels(place)).save(folder / f"{place:04}.png")
    images = [folder]
handed = make_dir(lesson.fresh("handed_in"))
sample = handed / "sample.csv"
write_text(sample, "\n".join(["Id,Category", *(f"{number},0" for number in range(1, num_test + 1))]) + "\n")
print(*sample.read_text().splitlines()[:4], "...", sep="\n")

# %% [markdown]
# **Predict:** your labels stand in an array that Python counts from 0. Which id has the image at place 0?

# %% kind="predict" name="first_id"
### BEGIN SOLUTION
guess = 1
### END SOLUTION

# %%
lesson.reveal(guess, int(sample.read_text().splitlines()[1].partition(",")[0]), "id of the first test image")


# %% kind="exercise" name="filled_in"
def filled_in(sample_text, labels):
    """Return the text of a submission: the header and the ids of the sample, in its order, with the label of each image."""
    ### BEGIN SOLUTION
    header, *rows = sample_text.splitlines()
    ids = [row.partition(",")[0] for row in rows]
    return "\n".join([header, *(f"{number},{label}" for number, label in zip(ids, labels, strict=True))]) + "\n"
    ### END SOLUTION


# %% kind="check" name="filled_in" points=2
text = filled_in("Id,Category\n1,0\n2,0\n3,0\n", [7, 0, 5])
assert text.startswith("Id,Category"), f"the first line is {text.splitlines()[0]!r}, and the sample has 'Id,Category'"
assert not text.startswith("Id,Category\n0,"), "the first id is 0, and the sample begins with 1"
assert text.count("\n") == 4, f"{text.count(chr(10))} lines, and there are a header and three images"
assert text == "Id,Category\n1,7\n2,0\n3,5\n", "the labels do not stand beside their ids"
predictions = fl.predict(run.path, images)
mine = predictions.probabilities.argmax(1).tolist()
own = handed / "own.csv"
write_text(own, filled_in(sample.read_text(), mine))
checked = check_submission(own, sample)
told = submit(run.path, images, Wanted(sample=sample), out=handed / "submission.csv")
assert own.read_bytes() == (handed / "submission.csv").read_bytes(), "`firstlight submit` has written another file"
print(f"{checked['num_images']:,} rows, ids {checked['first_id']} to {checked['last_id']}: taken")

# %% [markdown]
# Now spoil it, in the ways in which it happens. Each is refused with one line that says where.

# %%
good = own.read_text().splitlines()
spoilt = {
    "header": ["id,label", *good[1:]],
    "ids from 0": [good[0], *(f"{number},{row.partition(',')[2]}" for number, row in enumerate(good[1:]))],
    "a row is missing": good[:-1],
    "an id comes twice": [*good[:3], good[2], *good[4:]],
    "a label is missing": [*good[:5], good[5].partition(",")[0] + ",", *good[6:]],
}
for name, lines in spoilt.items():
    wrong = handed / "spoilt.csv"
    write_text(wrong, "\n".join(lines) + "\n")
    try:
        check_submission(wrong, sample)
    except FirstlightError as error:
        print(f"{name}: {str(error).replace(handed.as_posix() + '/', '')}")
    else:
        raise AssertionError(f"{name}: taken")

# %% [markdown]
# ## What will it score?
#
# The validation accuracy is a share of $n$ images, and another $n$ images would have given another share. An interval says how far that
# goes. The one in every textbook, $\hat p \pm 1.96 \sqrt{\hat p (1 - \hat p) / n}$, is wrong where it matters, near 1: with all images
# right it says "exactly 1". Wilson's is
#
# $$\frac{\hat p + \frac{z^2}{2n} \pm z \sqrt{\frac{\hat p (1 - \hat p)}{n} + \frac{z^2}{4 n^2}}}{1 + \frac{z^2}{n}}, \quad z = 1.96$$


# %% kind="exercise" name="wilson"
def wilson(num_right, num):
    """Return the two ends of Wilson's 95 % interval of a share."""
    z = NormalDist().inv_cdf(0.975)  # 1.96, to all digits
    share = num_right / num
    ### BEGIN SOLUTION
    half_width = z * math.sqrt(share * (1 - share) / num + z * z / (4 * num * num))
    middle, below = share + z * z / (2 * num), 1 + z * z / num
    return (middle - half_width) / below, (middle + half_width) / below
    ### END SOLUTION


# %% kind="check" name="wilson" points=1
for right, num in ((45, 50), (0, 10), (194, 200)):
    low, high = wilson(right, num)
    expected = wilson_interval(right, num)
    assert low < high, f"the ends {low:.3f} and {high:.3f} stand the wrong way round"
    plain = 1.96 * math.sqrt(right / num * (1 - right / num) / num)
    assert abs(high - low - 2 * plain) > 1e-4, "that is the textbook's interval: all of the numerator is divided by 1 + z^2 / n"
    both = f"{low:.4f} to {high:.4f}, and firstlight has {expected[0]:.4f} to {expected[1]:.4f}"
    assert max(abs(low - expected[0]), abs(high - expected[1])) < 1e-9, f"{right} of {num}: {both}"
print("45 of 50 images right: between", " and ".join(f"{end:.3f}" for end in wilson(45, 50)))

# %% [markdown]
# Does it matter? Let a network be right with probability 0.98 on each of 100 images, many times over, and count how often each interval
# holds 0.98. Both promise 95 %. **Predict** what the textbook's one keeps.

# %% kind="predict" name="coverage"
### BEGIN SOLUTION
guess = 0.87
### END SOLUTION

# %%
rights = np.random.default_rng(0).binomial(100, 0.98, 10_000)
shares = rights / 100
textbook = 1.96 * np.sqrt(shares * (1 - shares) / 100)
kept = {"textbook": float((np.abs(shares - 0.98) <= textbook).mean())}
ends = np.array([wilson(int(right), 100) for right in range(101)])[rights]
kept["Wilson"] = float(((ends[:, 0] <= 0.98) & (ends[:, 1] >= 0.98)).mean())
lesson.reveal(guess, kept["textbook"], "share of the textbook's intervals that hold the truth")
lesson.measured("the same of Wilson's", kept["Wilson"], least=0.93, most=0.98)
lesson.measured("the textbook's", kept["textbook"], most=0.9)

# %% [markdown]
# The score on the test images is a draw of its own, so its interval is wider than that of the validation accuracy (`score_interval`, a
# beta-binomial). And here, for once, we can play the organisers: the generator knows the labels that it kept to itself.

# %%
num_val, accuracy = run.info["data"]["num_val"], run.summary["val_accuracy"]
drawn = np.random.default_rng([0, 2]).permutation(np.arange(num_test) % num_classes)  # as the generator draws them
truth = drawn if with_hdf5 else hidden.labels.numpy()
score = float((np.array(mine) == truth).mean())
val_ends, score_ends = wilson(round(accuracy * num_val), num_val), score_interval(accuracy, num_val, num_test)
figure, (axes,) = new_figure(width=7.5, height=2.4)
for place, ((low, high), middle) in enumerate(((val_ends, accuracy), (score_ends, None))):
    axes.plot([low, high], [place, place], color=color_of(place), linewidth=5, solid_capstyle="butt")
    if middle is not None:
        axes.plot(middle, place, "o", color="black")
axes.axvline(score, color="black", linestyle="--", label=f"the score: {score:.3f}")
axes.set_yticks([0, 1], ["validation", "expected score"])
axes.set_ylim(1.6, -0.6)
axes.legend(frameon=False, loc="lower left")
tidy(axes, x="accuracy", y="", title="What was promised, and what came")
lesson.show(figure, "score")
lesson.measured(
    "width of the interval of the score over that of validation", (score_ends[1] - score_ends[0]) / (val_ends[1] - val_ends[0]), least=1.1
)
lesson.measured("score less the lower end", score - score_ends[0], least=-0.03)
lesson.measured("upper end less the score", score_ends[1] - score, least=-0.03)
print(judge_score(run.path, score)["says"])

# %% [markdown]
# A score far outside says that something else is wrong. Ids that are off by one, for instance: every label is handed in for the image
# before.

# %%
shifted = float((np.roll(mine, 1) == truth).mean())
judged = judge_score(run.path, shifted)
print(f"score {shifted:.3f}: {judged['says']}")
assert not judged["plausible"]
lesson.measured("score with ids that are off by one", shifted, most=0.3)

# %% [markdown] kind="answer" name="ten_times" points=2
# A team hands in forty submissions a day and keeps the best score of the public leaderboard. Why will its score on the hidden rest of the
# test images be lower, and what should it have chosen by?
#
# ### BEGIN SOLUTION
# Each score is a draw around the truth; the best of many is one whose draw was lucky, and the luck does not come again on other images. The
# more submissions, the more it has fitted the public part. It should choose by validation images of its own, and hand in that one; the
# leaderboard then only confirms that the score lies in the interval that validation promised.
# ### END SOLUTION

# %% [markdown] kind="answer" name="why_window" points=1
# A file is sorted by class: all 7,500 images of the first class, then all of the second. What happens to training with blocks of 150
# neighbours and a window of a single block? What would you change, if the file must stay as it is?
#
# ### BEGIN SOLUTION
# Every window holds one class, so each step pulls the network to that class and it forgets the others (lesson 16 shows it). Take smaller
# blocks and more of them in a window, so that a window holds many classes; firstlight cuts blocks into eighths where it finds a sorted
# file. Or write the file once in a shuffled order.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/data/streaming.py` makes the order of this lesson and reads one window ahead; `firstlight/data/stored.py` reads blocks;
# `firstlight/export/submission.py` writes, checks and judges. docs/scale.md has what was measured at scale.
#
# - `firstlight data generate FILE.h5`, `firstlight data convert FOLDER FILE.h5`, `firstlight data check FILE.h5 --full`
# - `firstlight train resnet18_medium_imagenet data.path=FILE.h5`
# - `firstlight submit RUN --sample sample.csv`, `firstlight submit --check FILE --sample sample.csv`, `firstlight submit RUN --score 0.93`
