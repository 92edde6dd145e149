# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Tensors, and derivatives that nobody has to work out
#     minutes: 1
#     shows: [A14, B1, B2]
# ---

# %% [markdown]
# # Tensors, and derivatives that nobody has to work out
#
# **You will learn** to read the shape of a tensor, to compute with whole tensors in place of loops, to write a small network by hand, and
# to let PyTorch find its derivatives. At the end you fit a first classifier in one line, and meet a surprise.
#
# **Before:** Python, and what a matrix product is. **Takes** a minute.
#
# **Comes from** the tensor notebooks with which most courses on PyTorch begin; the network with the known value is that of Udacity's
# *Intro to Deep Learning with PyTorch* (2018). Automatic differentiation backwards is Linnainmaa (1970). The surprise is Belkin, Hsu, Ma
# and Mandal (2019), *Reconciling modern machine-learning practice and the classical bias-variance trade-off*.

# %%
import torch
from torch.overrides import TorchFunctionMode

from firstlight.engine.memory import host_memory
from firstlight.inspection.warmup import fit_least_squares, parity_accuracy
from firstlight.notebooks.lesson import begin
from firstlight.plotting.datasets import plot_warmup
from firstlight.plotting.images import plot_images
from firstlight.plotting.style import color_of, new_figure, tidy
from firstlight.profiling.peak import memory_in_use, reset_peak

lesson = begin("tensors_and_autograd")
train, val = lesson.load(num_train=lesson.pick(small=3_000, full=None))

# %% [markdown]
# ## A tensor is numbers in a box
#
# A tensor has a **shape** (how many numbers along each dimension) and a **dtype** (what kind of number each one is). The images of this
# lesson are one tensor of four dimensions: image, colour channel, row, column. The labels are a tensor of one dimension: a whole number
# for each image.

# %%
print("images", tuple(train.images.shape), train.images.dtype)
print("labels", tuple(train.labels.shape), train.labels.dtype)
image = train.images[0]  # an index takes one dimension away
print("one image", tuple(image.shape), "from", image.min().item(), "to", image.max().item())
lesson.measured("bytes of one pixel", train.images.element_size(), least=4, most=4)

# %% [markdown]
# Ten images that a seed draws at random, each with its label. The same seed draws the same images on every machine: without that, nobody
# could repeat what you did.

# %%
chosen = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(1))[:10]
shown = [(image[0] * 255).byte().numpy() for image in train.images[chosen]]
lesson.show(plot_images(shown, [f"label {label}" for label in train.labels[chosen].tolist()], title="Ten random images"), "digits")

# %% [markdown]
# ## Reduce one dimension, keep the others
#
# `mean(dim=0)` takes the mean over dimension 0, the images, and that dimension is gone. So the mean of all images is an image.
#
# **Predict:** `flatten(1)` joins all dimensions from number 1 on. What is the shape of `train.images[:64].flatten(1)`? Write it as a
# text, such as "(5, 3)".

# %% kind="predict" name="flat_shape"
### BEGIN SOLUTION
guess = f"(64, {train.images[0].numel()})"
### END SOLUTION

# %%
lesson.reveal(guess, str(tuple(train.images[:64].flatten(1).shape)), "shape of 64 images as rows")
mean_image = train.images.mean(dim=0)
print("mean image", tuple(mean_image.shape))

# %% [markdown]
# Many operations copy nothing. `flatten` gives another **view** of the same numbers: write into the view, and the image changes.

# %%
original = torch.zeros(2, 3)
view = original.flatten()
view[0] = 7.0
print(original)
assert original[0, 0] == 7, "flatten made a copy here"

# %% [markdown]
# ## Broadcasting, and the mistake that raises no error
#
# Two shapes are lined up **from the right**. Where one of them has size 1, or no dimension at all, its numbers are repeated (in thought:
# nothing is copied). So `[N, D] - [D]` subtracts one row from each of N rows, and `[N, 1]` with `[M]` gives all N x M pairs.

# %%
rows = train.images[:5].flatten(1)
centred = rows - rows.mean(dim=0)  # [5, D] - [D]
lesson.measured("largest mean of a centred pixel", centred.mean(dim=0).abs().max(), most=1e-6)

# %% [markdown]
# That is handy, and it is where most silent mistakes come from. A model gives its outputs as a column `[N, 1]`, the targets are `[N]`,
# and somebody writes `(outputs - targets).square().mean()`.
#
# **Predict:** with N = 4, what is the shape of `outputs - targets`?

# %% kind="predict" name="silent_mistake"
### BEGIN SOLUTION
guess = "(4, 4)"
### END SOLUTION

# %%
targets = torch.tensor([1.0, 2.0, 3.0, 4.0])
outputs = targets[:, None]  # [4, 1]: every output is exactly right
lesson.reveal(guess, str(tuple((outputs - targets).shape)), "shape of [4, 1] - [4]")
lesson.measured("mean squared error of outputs that are all right", (outputs - targets).square().mean(), least=2.5, most=2.5)
lesson.measured("the same with the shapes alike", (outputs[:, 0] - targets).square().mean(), most=0)

# %% [markdown]
# The outputs are perfect and the error is 2.5, because each output was compared with every target. No exception tells you. Print shapes.
#
# ## All distances at once
#
# How far is each of N images from each of M others? Two loops in Python would take N x M steps. Broadcasting `[N, 1, d] - [M, d]` needs
# no loop, and a tensor of N x M x d numbers. There is a third way:
#
# $$|a - b|^2 = |a|^2 - 2\,a \cdot b + |b|^2$$
#
# All the products $a \cdot b$ are one matrix product, and the largest tensor is N x M. Rounding can leave a tiny negative number where
# two rows are equal, whose square root is not a number: raise such results to 0.


# %% kind="exercise" name="squared_distances"
def squared_distances(a, b):
    """Return [N, M]: the squared distance of each row of a [N, d] to each row of b [M, d]. No loop, nothing below 0."""
    ### BEGIN SOLUTION
    of_a = (a * a).sum(dim=1, keepdim=True)  # [N, 1]
    of_b = (b * b).sum(dim=1)  # [M]
    return (of_a - 2 * (a @ b.T) + of_b).clamp(min=0)
    ### END SOLUTION


# %% kind="check" name="squared_distances" points=3
class Calls(TorchFunctionMode):
    """Counts the calls of torch, and notes the largest tensor that one of them returned."""

    def __init__(self):
        super().__init__()
        self.count, self.largest = 0, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += 1
        self.largest = max(self.largest, result.numel() if isinstance(result, torch.Tensor) else 0)
        return result


first, second = train.images[:300].flatten(1), val.images[:200].flatten(1)
some, others = first[:30], second[:20]
with Calls() as few:
    squared_distances(some, others)
with Calls() as many:
    found = squared_distances(first, second)
truth = torch.cdist(first, second) ** 2
assert tuple(found.shape) == (300, 200), (
    f"the shape is {tuple(found.shape)}; it should be (300, 200): a row for each of a, a column for each of b"
)
assert not torch.allclose(found, truth.sqrt(), atol=1e-4), "these are the distances, not their squares"
assert (found - truth).abs().max() < 1e-4, (
    f"a distance is {(found - truth).abs().max():.3g} off: are all three terms there, with -2 in the middle?"
)
assert many.count == few.count, f"{few.count} calls of torch for 30 rows and {many.count} for 300: there is a loop over the rows"
assert many.largest <= first.numel() + second.numel() + found.numel(), f"a tensor of {many.largest:,} numbers: is that [N, M, d]?"
assert squared_distances(first, first).min() >= 0, "a squared distance is below 0: rounding does that, clamp(min=0) mends it"
print("squared_distances agrees with torch.cdist, in", many.count, "calls whatever the number of rows")

# %% [markdown]
# Now many at once: 5,000 x 5,000 at full size on MNIST. With [N, M, d] that would be 78 GB. What does it really take? The system keeps
# the highest memory that this process has held; `firstlight/profiling/peak.py` lets it begin anew just before.

# %% varies=true
num = min(5_000, len(train.images))
rows = train.images[:num].flatten(1)
before = memory_in_use("cpu")
counted = reset_peak("cpu")
distances = squared_distances(rows, rows)
peak = (host_memory("VmHWM") or 0) - before
wide = distances.nbytes * rows.shape[1] / 1e9
print(f"{num:,} x {num:,} distances take {distances.nbytes / 1e6:.0f} MB, the tensor [N, M, d] would take {wide:.1f} GB")
if counted:
    lesson.measured("GB that computing them took at most", peak / 1e9, most=1.0)
else:
    print("this system does not let the peak begin anew, so it is not measured here")

# %%
reference = torch.cdist(rows, rows) ** 2
lesson.measured("largest difference to torch.cdist, squared", (distances - reference).abs().max(), most=lesson.on(mnist=1e-3, digits=1e-4))

# %% [markdown]
# ## A classifier without learning
#
# Distances are enough to read digits: give each new image the label of the nearest image that you know. Nothing is trained, and it needs
# all images at hand for each answer. Keep the number in mind when you train networks.

# %%
known, unseen = train.images[:5_000].flatten(1), val.images[:2_000].flatten(1)
nearest = squared_distances(unseen, known).argmin(dim=1)
neighbour_accuracy = (train.labels[nearest] == val.labels[:2_000]).double().mean()
lesson.measured("accuracy of the nearest of the known images", neighbour_accuracy, least=lesson.pick(small=0.88, full=0.92))

# %% [markdown]
# ## A network by hand
#
# A network is matrix products with a curve between them. Three inputs, two hidden units, one output; the curve is the sigmoid,
# $\sigma(x) = 1 / (1 + e^{-x})$:
#
# $$h = \sigma(x W_1 + b_1), \qquad y = \sigma(h W_2 + b_2)$$
#
# Write it with `@` and `torch.sigmoid`. It should work for any number of rows at once.


# %% kind="exercise" name="two_layers"
def two_layers(x, w1, b1, w2, b2):
    """Return [N, 1]: the outputs for x [N, 3]; w1 [3, 2], b1 [1, 2], w2 [2, 1], b2 [1, 1]."""
    ### BEGIN SOLUTION
    return torch.sigmoid(torch.sigmoid(x @ w1 + b1) @ w2 + b2)
    ### END SOLUTION


# %% kind="check" name="two_layers" points=2
torch.manual_seed(7)
x = torch.randn(1, 3)
w1, w2 = torch.randn(3, 2), torch.randn(2, 1)
b1, b2 = torch.randn(1, 2), torch.randn(1, 1)
y = two_layers(x, w1, b1, w2, b2)
layers = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Sigmoid(), torch.nn.Linear(2, 1), torch.nn.Sigmoid()).requires_grad_(False)
for layer, weight, bias in ((layers[0], w1, b1), (layers[2], w2, b2)):
    layer.weight.copy_(weight.T)
    layer.bias.copy_(bias[0])
ten = torch.randn(10, 3)
assert tuple(y.shape) == (1, 1), f"the output has shape {tuple(y.shape)}, not (1, 1)"
assert not torch.allclose(y, layers[:3](x), atol=1e-6), "this is the output before the last sigmoid"
assert torch.allclose(y, layers(x), atol=1e-6), f"the output is {y.item():.4f}: are both biases added, and a sigmoid behind each product?"
assert torch.allclose(two_layers(ten, w1, b1, w2, b2), layers(ten), atol=1e-6), "one row is right, ten rows are not"

# %% [markdown]
# With seed 7 and the weights drawn in this order, everybody who takes that course gets the same number, **0.3171**.

# %%
lesson.measured("output of the two layers with seed 7", y, least=0.31705, most=0.31715)

# %% [markdown]
# ## Derivatives
#
# Learning means: change each weight a little, so that the loss falls. For that we need the derivative of the loss by each weight. PyTorch
# writes down every operation on a tensor that has `requires_grad=True`; `backward()` walks that record from the end to the start, by the
# chain rule, and leaves the derivative in `.grad`.

# %%
number = torch.tensor(2.0, requires_grad=True)
cube = number**3
print("the last operation on the record:", type(cube.grad_fn).__name__)
cube.backward()
lesson.measured("derivative of x^3 at x = 2", number.grad, least=12, most=12)

# %% [markdown]
# **Predict:** compute `number**3` again and call `backward()` a second time. What is `number.grad` then?

# %% kind="predict" name="second_backward"
### BEGIN SOLUTION
guess = 24.0
### END SOLUTION

# %%
(number**3).backward()
lesson.reveal(guess, number.grad.item(), "the gradient after a second backward")
lesson.measured("gradient after two calls of backward", number.grad, least=24, most=24)

# %% [markdown]
# A gradient is **added** to what stands there already. That is on purpose (a weight that is used twice needs the sum), and it is why
# every training loop forgets the old gradients before the next batch.
#
# Now by hand, once in your life. The derivative of the sigmoid is $\sigma'(x) = \sigma(x)\,(1 - \sigma(x))$. With $x$ one row:
#
# $$\frac{\partial y}{\partial W_2} = h^T\, y (1 - y), \qquad
# \frac{\partial y}{\partial W_1} = x^T \left( y (1 - y)\, W_2^T \odot h \odot (1 - h) \right)$$
#
# The error travels backwards: what stands behind $x^T$ is what stood at the output, carried through $W_2$ and through the curve of the
# hidden layer. The sign $\odot$ is the product number by number, `*`.


# %% kind="exercise" name="derivatives"
def derivatives(x, w1, b1, w2, b2):
    """Return the derivatives of the one output y by w1 [3, 2] and by w2 [2, 1], by the formulas above; x is [1, 3]."""
    ### BEGIN SOLUTION
    h = torch.sigmoid(x @ w1 + b1)
    output = torch.sigmoid(h @ w2 + b2)
    slope = output * (1 - output)  # [1, 1]
    return x.T @ (slope * w2.T * h * (1 - h)), h.T @ slope
    ### END SOLUTION


# %% kind="check" name="derivatives" points=3
parameters = [tensor.clone().requires_grad_() for tensor in (w1, b1, w2, b2)]
layers_by_torch = torch.sigmoid(torch.sigmoid(x @ parameters[0] + parameters[1]) @ parameters[2] + parameters[3])
layers_by_torch.sum().backward()
by_w1, by_w2 = derivatives(x, w1, b1, w2, b2)
for name, mine, weight in (("w2", by_w2, parameters[2]), ("w1", by_w1, parameters[0])):
    assert mine.shape == weight.shape, (
        f"the derivative by {name} has shape {tuple(mine.shape)}; it has one number for each weight, {tuple(weight.shape)}"
    )
    far = (mine - weight.grad).abs().max().item()
    assert far < 1e-6, (
        f"the derivative by {name} is {far:.2g} off: is the slope of {'each' if name == 'w1' else 'the last'} sigmoid a factor?"
    )
print("derivatives by hand and by autograd agree:", by_w2.flatten().tolist())

# %% [markdown]
# ## The third way: try it out
#
# Move a weight a little to both sides and see how far the output moves: $\left(f(w + \varepsilon) - f(w - \varepsilon)\right) /
# 2\varepsilon$. That needs two runs for each weight, so nobody trains with it. But it knows nothing of formulas, and so it finds mistakes
# in them.
#
# How small should $\varepsilon$ be? Too large, and the curve bends between the two points. Too small, and rounding eats the difference.


# %%
def difference_quotient(dtype, step):
    """Return the derivative of the output by the first weight of the last layer, from two outputs."""
    x_, w1_, b1_, w2_, b2_ = (tensor.to(dtype) for tensor in (x, w1, b1, w2, b2))
    moved = torch.zeros_like(w2_)
    moved[0] = step
    up, down = (torch.sigmoid(torch.sigmoid(x_ @ w1_ + b1_) @ w + b2_) for w in (w2_ + moved, w2_ - moved))
    return ((up - down) / (2 * step)).item()


hidden = torch.sigmoid(x.double() @ w1.double() + b1.double())
out = torch.sigmoid(hidden @ w2.double() + b2.double())
exact = (hidden[0, 0] * out * (1 - out)).item()
steps = [10.0**-power for power in range(1, 14)]
errors = {dtype: [abs(difference_quotient(dtype, step) - exact) / abs(exact) for step in steps] for dtype in (torch.float32, torch.float64)}
figure, (axes,) = new_figure(width=7, height=3.8)
for number, (dtype, label) in enumerate(((torch.float32, "float32, 7 digits"), (torch.float64, "float64, 16 digits"))):
    axes.plot(steps, errors[dtype], marker="o", markersize=4, color=color_of(number), label=label)
axes.set(xscale="log", yscale="log")
axes.legend(frameon=False)
tidy(axes, x="step ε", y="error of the derivative (relative)", title="Too large a step bends, too small a step rounds")
lesson.show(figure, "differences")

# %%
lesson.measured("smallest error with float64", min(errors[torch.float64]), most=1e-8)
lesson.measured("smallest error with float32", min(errors[torch.float32]), least=1e-8, most=1e-2)
lesson.measured("error with float64 at the largest step", errors[torch.float64][0], least=1e-5)
lesson.measured("error with float64 at the smallest step", errors[torch.float64][-1], least=1e-6)
lesson.measured("error with float64 at a step of 1e-5", errors[torch.float64][4], most=1e-8)
lesson.measured("error with float32 at a step of 1e-5", errors[torch.float32][4], least=1e-4)

# %% [markdown]
# So a check by differences belongs in float64, with a step of about 1e-5. In float32 the same step leaves an error of a percent or so,
# which hides small mistakes.
#
# ## A first fit, in closed form
#
# Odd or even? Take 500 random images as rows of a matrix X, and for each a target y: +1 where the digit is odd, -1 where it is even. Look
# for one weight a pixel, so that $|Xw - y|^2$ is as small as it can be. No steps are needed: linear algebra has the answer, $w = X^{+}
# y$, with $X^{+}$ the pseudo-inverse (`torch.linalg.pinv`, or `torch.linalg.lstsq` with `driver="gelsd"`). Where many $w$ are equally
# good, it gives the shortest. Compute in float64. The answer is "odd" where $Xw$ is above 0.


# %% kind="exercise" name="fit_odd_even"
def fit_odd_even(inputs, labels):
    """Return the weights, float64 [d], for inputs [N, d] and labels int64 [N] that are digits; odd is +1, even is -1."""
    ### BEGIN SOLUTION
    y = (2 * (labels % 2) - 1).double()
    return torch.linalg.pinv(inputs.double()) @ y
    ### END SOLUTION


# %% kind="check" name="fit_odd_even" points=2
order = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(0))
X, labels = train.images[order[:500]].flatten(1), train.labels[order[:500]]
Y = torch.where(labels % 2 == 1, 1.0, -1.0).double()
print("X", tuple(X.shape), "Y", tuple(Y.shape))
weights = fit_odd_even(X, labels)
expected, _ = fit_least_squares(X, Y)
assert tuple(weights.shape) == tuple(expected.shape), (
    f"the weights have shape {tuple(weights.shape)}: one for each pixel, {tuple(expected.shape)}"
)
assert weights.dtype == torch.float64, f"the weights are {weights.dtype}: compute in float64, X is close to singular"
assert not torch.allclose(weights, -expected, atol=1e-4), "odd should be +1 and even -1, not the other way round"
misfit, least = ((X.double() @ found - Y).square().sum().item() for found in (weights, expected))
assert misfit <= least + 1e-6, f"the squared error is {misfit:.4g}, and {least:.4g} can be reached: are the targets +1 and -1?"
assert weights.norm() <= expected.norm() * 1.001, "there are shorter weights that fit as well: use the pseudo-inverse"
print("fit_odd_even agrees with firstlight.inspection.warmup")

# %% [markdown]
# **Predict:** which share of the images that it has *not* seen does it get right? (Half would be guessing.)

# %% kind="predict" name="unseen"
### BEGIN SOLUTION
guess = 0.85
### END SOLUTION

# %%
of_val = torch.where(val.labels % 2 == 1, 1.0, -1.0).double()
seen_accuracy = parity_accuracy(weights, X, Y)
unseen_accuracy = parity_accuracy(weights, val.images.flatten(1), of_val)
lesson.reveal(guess, unseen_accuracy, "share of unseen images")
lesson.measured("accuracy on the 500 images it was fitted to", seen_accuracy, least=lesson.on(mnist=1.0, digits=0.88))
lesson.measured(
    "accuracy on images it has not seen", unseen_accuracy, least=lesson.on(mnist=0.5, digits=0.84), most=lesson.on(mnist=0.7, digits=0.97)
)
picture = weights.view(train.images.shape[1:]).sum(0).numpy()
says = f"500 images: {seen_accuracy:.1%} of them, {unseen_accuracy:.1%} of unseen ones"
lesson.show(plot_warmup((train.images[order[0], 0] * 255).byte().numpy(), str(labels[0].item()), picture, title=says), "weights")

# %% [markdown]
# ## The surprise
#
# More images should give better weights. Fit to few and to many, three random draws each, and look at both accuracies. Some pixels are
# black in all images and tell nothing: `independent` counts how many columns of the largest X really differ (its rank).

# %%
sizes = lesson.on(
    mnist=lesson.pick(small=[50, 500, 2_000], full=[50, 100, 200, 300, 400, 500, 600, 700, 800, 1_000, 1_500, 2_000, 3_000, 5_000]),
    digits=[10, 20, 30, 40, 50, 60, 70, 80, 100, 150, 200, 300, 500, 1_000],
)
pixels, signs = train.images.flatten(1), torch.where(train.labels % 2 == 1, 1.0, -1.0).double()
accuracies = {"seen": [], "unseen": []}
for num in sizes:
    both = []
    for seed in range(3):
        drawn = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))[:num]
        fitted, independent = fit_least_squares(pixels[drawn], signs[drawn])
        both.append((parity_accuracy(fitted, pixels[drawn], signs[drawn]), parity_accuracy(fitted, val.images.flatten(1), of_val)))
    for name, values in zip(accuracies, zip(*both, strict=True), strict=True):
        accuracies[name].append(sum(values) / len(values))

figure, (axes,) = new_figure(width=7, height=3.8)
for number, (name, label) in enumerate((("seen", "images it was fitted to"), ("unseen", "images it has not seen"))):
    axes.plot(sizes, accuracies[name], marker="o", markersize=4, color=color_of(number), label=label)
axes.axvline(independent, color="#888888", linestyle=":", label=f"as many images as independent pixels, {independent}")
axes.set(xscale="log", ylim=(0.4, 1.03))
axes.xaxis.set_major_formatter("{x:,.0f}")
axes.legend(frameon=False, loc="lower right", fontsize=9)
tidy(axes, x="images fitted to", y="accuracy, odd or even", title="More images, and for a while it gets worse")
lesson.show(figure, "descent")

# %%
worst = min(range(len(sizes)), key=accuracies["unseen"].__getitem__)
print("worst on unseen images with", sizes[worst], "images")
lesson.measured("accuracy on unseen images, fewest images", accuracies["unseen"][0], least=0.7)
lesson.measured("accuracy on unseen images, at the worst", accuracies["unseen"][worst], most=lesson.on(mnist=0.65, digits=0.69))
lesson.measured("accuracy on unseen images, most images", accuracies["unseen"][-1], least=lesson.on(mnist=0.8, digits=0.88))
lesson.measured("accuracy on seen images, at the worst", accuracies["seen"][worst], least=0.99)
lesson.measured("images at the worst over the independent pixels", sizes[worst] / independent, least=0.6, most=1.4)

# %% [markdown] kind="answer" name="why_worse" points=2
# The accuracy on unseen images falls while images are added, is at its worst where there are about as many images as independent pixels,
# and rises after that. What is special about that place? Think of how many equations there are, how many unknowns, and what a fit has to
# do to meet every one of its targets exactly.
#
# ### BEGIN SOLUTION
# Each image is an equation, each independent pixel an unknown. With as many equations as unknowns there is just one way to meet all
# targets, however wild the weights must be for it. With fewer images there is a choice, and the shortest weights are tame ones. With many
# more images no weights meet all targets, so the fit has to take what most images agree on, and that holds for unseen images as well.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight inspect warmup mnist` (or `digits`) does the fit in one command, with the picture; `firstlight/inspection/warmup.py` is
# short enough to read now. Distances to the nearest training images are in `firstlight/inspection/neighbours.py`, and `firstlight inspect
# mistakes RUN` shows them. Autograd works in every line of `firstlight/models/scratch.py`, which is the next lesson.
