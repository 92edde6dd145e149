# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Networks from parts
#     minutes: 1
#     shows: [B3, B4]
# ---

# %% [markdown]
# # Networks from parts
#
# **You will learn** what `nn.Module` does for you, how to write a layer of your own, how to put layers in a row, how to count what a
# network learns, and how to keep its weights in a file that cannot run code.
#
# **Before:** lesson 2 (a network by hand). **Takes** less than a minute.
#
# **Comes from** PyTorch's own tutorial *What is torch.nn really?* (Howard, 2018), and from courses that begin with a `Reshape` layer. The
# file format is safetensors (Hugging Face, 2022).

# %%
import io
import math
import pickle
import pickletools
from pathlib import Path

import torch
from torch import nn

from firstlight.errors import ConfigError
from firstlight.files import make_dir, tensors_from_bytes, tensors_to_chunks, write_bytes
from firstlight.models import layers as firstlight_layers
from firstlight.models.layers import count_parameters
from firstlight.models.mlp import MLP
from firstlight.notebooks.lesson import begin
from firstlight.plotting.layers import plot_layers
from firstlight.plotting.style import color_of, new_figure, tidy
from firstlight.profiling.summary import describe_layers

lesson = begin("modules")
train, val = lesson.load(num_train=lesson.pick(small=1_000, full=None))
image_shape = tuple(train.images.shape[1:])
num_pixels = math.prod(image_shape)

# %% [markdown]
# ## A module keeps a list of what it learns
#
# In lesson 2 you carried the weights around in a list. `nn.Module` keeps that list for you: whatever is an `nn.Parameter`, or another
# module, and is assigned to `self`, gets on it. `forward` says what the module computes; you call the module itself, as if it were a
# function.
#
# Write the layer that `nn.Linear` is. The weights are [outputs, inputs], drawn by `torch.randn` and divided by the square root of the
# number of inputs; the biases start at zero.


# %% kind="exercise" name="affine"
class Affine(nn.Module):
    """Rows times a matrix plus a bias: [B, num_inputs] -> [B, num_outputs]; parameters are called weight and bias."""

    def __init__(self, num_inputs, num_outputs):
        super().__init__()
        ### BEGIN SOLUTION
        self.weight = nn.Parameter(torch.randn(num_outputs, num_inputs) / num_inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(num_outputs))
        ### END SOLUTION

    def forward(self, values):
        """Return the outputs [B, num_outputs]."""
        ### BEGIN SOLUTION
        return values @ self.weight.T + self.bias
        ### END SOLUTION


# %% kind="check" name="affine" points=2
torch.manual_seed(0)
affine, linear = Affine(6, 4), nn.Linear(6, 4)
names = sorted(name for name, _ in affine.named_parameters())
assert names == ["bias", "weight"], f"the module knows of {names or 'no parameters'}: is each one an nn.Parameter, assigned to self?"
assert affine.weight.shape == linear.weight.shape, f"the weights are {tuple(affine.weight.shape)}; torch keeps [outputs, inputs], (4, 6)"
assert affine.bias.count_nonzero() == 0, "the biases should start at zero"
assert 0.2 < affine.weight.std() * 6**0.5 < 2, "the weights should be random, of a size of one over the square root of the inputs"
linear.load_state_dict(affine.state_dict())
some = torch.randn(5, 6)
assert torch.allclose(affine(some), linear(some), atol=1e-6), "with the same weights, the outputs differ from those of nn.Linear"
print("Affine computes what nn.Linear computes")

# %% [markdown]
# ## What does not get on the list
#
# **Predict:** the network below keeps its three layers in a Python list. How many parameters does it have, as its optimizer would see
# them?


# %% kind="predict" name="in_a_list"
### BEGIN SOLUTION
guess = 0
### END SOLUTION


# %%
class InAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(num_pixels, 128), nn.Linear(128, 64), nn.Linear(64, 10)]

    def forward(self, images):
        values = images.flatten(1)
        for layer in self.layers:
            values = layer(values)
        return values


in_a_list = InAList()
print("it computes:", tuple(in_a_list(train.images[:2]).shape))
lesson.reveal(guess, count_parameters(in_a_list), "parameters that the module knows of")
lesson.measured("parameters of a network whose layers are in a list", count_parameters(in_a_list), most=0)
in_a_list.layers = nn.ModuleList(in_a_list.layers)
lesson.measured("parameters once it is an nn.ModuleList", count_parameters(in_a_list), least=lesson.on(mnist=109_386, digits=17_226))

# %% [markdown] kind="answer" name="unseen_layers" points=2
# The network with the Python list gives outputs of the right shape. Name two things that go wrong with it later, although no line of its
# own raises an error.
#
# ### BEGIN SOLUTION
# The optimizer gets no parameters (torch.optim then says that the list is empty), or, if there is one proper layer beside the list, it
# trains only that one and the rest stays as it was drawn. Its state_dict is empty, so that saving and loading keep nothing. And
# `.to(device)` leaves those layers where they are.
# ### END SOLUTION

# %% [markdown]
# ## A layer without parameters
#
# Images come as [B, 1, H, W], linear layers want rows. `Reshape(2, 3)` gives each element of the batch the shape [2, 3], and `Reshape(6)`
# makes it a row again. The first dimension is the batch: whatever its size, it stays. That is all, but a good layer also says clearly
# when it cannot work: a `ValueError` that names the shape it got and the shape it was told.


# %% kind="exercise" name="reshape"
class Reshape(nn.Module):
    """Give each element of a batch a shape: [B, ...] -> [B, *shape]; ValueError names both shapes where the sizes differ."""

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def forward(self, values):
        """Return the values as [B, *shape]."""
        ### BEGIN SOLUTION
        if math.prod(values.shape[1:]) != math.prod(self.shape):
            raise ValueError(f"each element has shape {tuple(values.shape[1:])}, which cannot become {self.shape}")
        return values.reshape(len(values), *self.shape)
        ### END SOLUTION


# %% kind="check" name="reshape" points=2
cube = torch.arange(24.0).reshape(4, 3, 2)
for shape in ((6,), (2, 3), (1, 6, 1)):
    expected = firstlight_layers.Reshape(*shape)(cube)
    found = Reshape(*shape)(cube)
    assert found.shape[0] == 4, f"a batch of 4 became a batch of {found.shape[0]}: the first dimension is the batch"
    assert torch.equal(found, expected), f"Reshape{shape}: the numbers stand in another order than before; use reshape, not a transposition"
assert Reshape(2, 3)(cube[:0]).shape == (0, 2, 3), "an empty batch should stay an empty batch: name the batch size, do not leave it to -1"
assert Reshape(6)(cube.transpose(1, 2)).shape == (4, 6), "view refuses a transposed tensor; reshape does not"
for told in ((5,), (2, 2), (4, 6)):
    try:
        Reshape(*told)(cube)
        message = None
    except ValueError as error:
        message = str(error)
    except RuntimeError as error:
        raise AssertionError(f"Reshape{told}: this is torch's own message, not yours: {error}") from None
    assert message is not None, f"Reshape{told} took elements of shape (3, 2): the batch dimension was changed to make it fit"
    assert all(str(number) in message for number in (3, 2, *told)), f"the message should name both shapes, (3, 2) and {told}: {message}"
print("Reshape does what firstlight.models.layers.Reshape does; its error there says:")
try:
    firstlight_layers.Reshape(5)(cube)
except ConfigError as error:
    print(error)

# %% [markdown]
# ## Layers in a row
#
# `nn.Sequential` feeds each module with what the one before it gave. Build the network of lesson 2: rows of pixels, 128 units, 64 units,
# 10 logits, ReLU between them and none at the end. Use your `Reshape` to make rows of the images, and `nn.Linear` or your `Affine`.
#
# **Predict first:** how many numbers does it learn? Each layer has (inputs + 1) times outputs. The first layer has as many inputs as
# there are pixels.

# %% kind="predict" name="num_parameters"
### BEGIN SOLUTION
guess = (num_pixels + 1) * 128 + 129 * 64 + 65 * 10
### END SOLUTION


# %% kind="exercise" name="network"
def make_network():
    """Return an nn.Sequential: images [B, 1, H, W] -> logits [B, 10], with 128 and 64 hidden units and ReLU."""
    ### BEGIN SOLUTION
    return nn.Sequential(Reshape(num_pixels), nn.Linear(num_pixels, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    ### END SOLUTION


# %% kind="check" name="network" points=2
torch.manual_seed(0)
network = make_network()
assert isinstance(network, nn.Sequential), f"make_network returned {type(network).__name__}, not nn.Sequential"
logits = network(val.images[:100])
assert tuple(logits.shape) == (100, 10), f"100 images gave {tuple(logits.shape)}, not (100, 10)"
assert logits.min() < 0, "no logit is negative: there is a ReLU or a softmax behind the last layer"
matrices = [tuple(weight.shape) for weight in network.parameters() if weight.dim() == 2]
assert matrices == [(128, num_pixels), (64, 128), (10, 64)], f"the matrices are {matrices}"
with torch.no_grad():
    bent = network(val.images[:100] * 2) - 2 * logits + network(val.images[:100] * 0)
assert bent.abs().max() > 1e-4, "twice the pixels give twice the logits: nothing bends between the layers, where is ReLU?"
twin = MLP(image_shape, 10)
with torch.no_grad():
    for weight, other in zip(twin.parameters(), network.parameters(), strict=True):
        weight.copy_(other)
    far = (twin(val.images[:100]) - logits).abs().max().item()
assert far < 1e-5, f"with the same weights, firstlight's MLP gives logits that are {far:.2g} away"
print("the network is firstlight.models.mlp.MLP")

# %%
lesson.reveal(guess, count_parameters(network), "numbers that the network learns")
whole = lesson.on(mnist=109_386, digits=17_226)
print(f"{count_parameters(network):,} parameters")
lesson.measured("parameters beside those expected", count_parameters(network) - whole, least=0, most=0)

# %% [markdown]
# ## Look inside
#
# A **hook** is a function that a module calls each time it has computed something. With one on each layer you see every shape on the way,
# and where the parameters are.

# %%
shapes = []
hooks = [
    layer.register_forward_hook(lambda layer, inputs, output: shapes.append((type(layer).__name__, tuple(output.shape))))
    for layer in network
]
network(val.images[:100])
for hook in hooks:
    hook.remove()
for name, shape in shapes:
    print(f"{name:8s} {shape}")
assert len(shapes) == len(network), "a hook was not called"

# %%
described = describe_layers(twin, image_shape, "mlp")
lesson.show(plot_layers(described, title=f"Where the {whole:,} parameters are"), "parameters")
first = twin.linear1.weight.numel() + twin.linear1.bias.numel()
lesson.measured("share of the parameters in the first layer", first / whole, least=lesson.on(mnist=0.91, digits=0.48))

# %% [markdown]
# ## Logits, and the softmax that should not be there
#
# The network ends in logits. `nn.functional.cross_entropy` takes logits: it is log-softmax and the negative log-likelihood in one, so it
# can take the logarithm safely (lesson 2).

# %%
logits, labels = network(val.images[:100]).detach(), val.labels[:100]
probabilities = logits.softmax(dim=1)
in_one = nn.functional.cross_entropy(logits, labels)
in_two = nn.functional.nll_loss(logits.log_softmax(dim=1), labels)
lesson.measured("distance of a row of probabilities from 1", (probabilities.sum(dim=1) - 1).abs().max(), most=1e-6)
lesson.measured("cross-entropy of logits against NLL of log-softmax", (in_one - in_two).abs(), most=1e-6)

# %% [markdown]
# A classical mistake is to put a softmax at the end of the network and train with `cross_entropy`, which applies another one. Nothing
# fails.
#
# **Predict:** the network is perfect, its probabilities are 1 for the right class and 0 for the nine others. What does `cross_entropy`
# say of those probabilities?

# %% kind="predict" name="softmax_twice"
### BEGIN SOLUTION
guess = math.log(math.e + 9) - 1
### END SOLUTION

# %%
perfect = nn.functional.one_hot(labels, 10).float()
floor = nn.functional.cross_entropy(perfect, labels).item()
lesson.reveal(guess, floor, "loss of perfect probabilities after a second softmax")
lesson.measured("lowest loss that can be reached with softmax twice", floor, least=1.461, most=1.4613)

# %% [markdown]
# The loss can never go below 1.46. Worse, where all probabilities are near 0.1 the inner softmax hands back very little gradient. Train
# both ways for a moment, from the same weights and on the same batches:

# %%
curves = {}
for name, ending in (("logits", nn.Identity()), ("softmax twice", nn.Softmax(dim=1))):
    torch.manual_seed(0)
    model = nn.Sequential(make_network(), ending)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    curves[name] = []
    for _ in range(lesson.pick(small=250, full=500)):
        rows = torch.randint(len(train.labels), (64,))
        loss = nn.functional.cross_entropy(model(train.images[rows]), train.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curves[name].append(loss.item())
figure, (axes,) = new_figure(width=7, height=3.6)
for number, (name, curve) in enumerate(curves.items()):
    axes.plot(range(1, len(curve) + 1), curve, color=color_of(number), linewidth=1.2, label=name)
axes.axhline(floor, color="#888888", linestyle=":", label=f"lowest loss with softmax twice, {floor:.2f}")
axes.set_ylim(0, 2.6)
axes.legend(frameon=False, fontsize=9, loc="center right", bbox_to_anchor=(1.0, 0.68))
tidy(axes, x="step", y="loss of the batch (nats)", title="One softmax too many")
lesson.show(figure, "softmax_twice")

# %%
ends = {name: sum(curve[-10:]) / 10 for name, curve in curves.items()}
lesson.measured("loss at the end, logits", ends["logits"], most=lesson.pick(small=1.0, full=0.6))
lesson.measured("loss at the end, softmax twice", ends["softmax twice"], least=1.461)
lesson.measured("loss that softmax twice leaves over that of logits", ends["softmax twice"] / ends["logits"], least=1.5)

# %% [markdown]
# ## Keep the weights
#
# `state_dict()` gives every tensor of a module by name. That is what to keep: not the module, whose class may change, but names and
# numbers.

# %%
state = network.state_dict()
for name, tensor in state.items():
    print(f"{name:10s} {tuple(tensor.shape)}")
lesson.measured("tensors in the state", len(state), least=6, most=6)

# %% [markdown]
# How to write them down? `torch.save` uses **pickle**, Python's own format, and a pickle is a small program: it may name any function of
# any library and have it called while it is read. Below is a pickle that calls `print`. We do not load it, we only list its instructions;
# it could as well name the function that deletes files.


# %%
class Surprise:
    def __reduce__(self):
        return (print, ("this ran while a file was being read",))


instructions = [(step.name, argument) for step, argument, _ in pickletools.genops(pickle.dumps(Surprise()))]
for name, argument in instructions:
    if name in ("SHORT_BINUNICODE", "STACK_GLOBAL", "REDUCE"):
        print(name, "" if argument is None else argument)
lesson.measured("instructions that call a function", sum(name == "REDUCE" for name, _ in instructions), least=1)

# %% [markdown]
# So: never load a pickle that you did not write. `torch.load(..., weights_only=True)` allows only a few harmless names, and refuses this
# one.

# %%
file = io.BytesIO()
torch.save({"weight": torch.zeros(2), "surprise": Surprise()}, file)
try:
    torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    refused = False
except pickle.UnpicklingError as error:
    refused = True
    print("refused:", str(error).split(".")[0])
assert refused, "torch.load read a file that names a function"

# %% [markdown]
# firstlight keeps weights as **safetensors**: a header with names, dtypes and shapes, then the plain numbers. There is nothing in it that
# could be called.

# %%
path = make_dir(Path("runs")) / "network.safetensors"
write_bytes(path, b"".join(tensors_to_chunks(state)))
content = path.read_bytes()
header = content[8 : 8 + int.from_bytes(content[:8], "little")]
print(header[:120].decode(), "...")
lesson.measured("bytes of the file beyond the numbers themselves", len(content) - 4 * whole, least=100, most=1_000)

torch.manual_seed(1)
another = make_network()
another.load_state_dict(tensors_from_bytes(content, path))
lesson.measured("difference of a logit after saving and loading", (another(val.images[:100]).detach() - logits).abs().max(), most=0)

# %% [markdown]
# Names and shapes have to fit. Weights for a network of another shape are refused, and the message names every layer that does not fit:

# %%
narrower = MLP(image_shape, 10, hidden=(128, 32))
try:
    narrower.load_state_dict(twin.state_dict())
    complaint = ""
except RuntimeError as error:
    complaint = str(error)
print(complaint)
misfits = sum("size mismatch" in line for line in complaint.splitlines())
lesson.measured("tensors that do not fit, each named", misfits, least=3, most=3)

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/models/layers.py` has `Reshape` and what architectures share; `firstlight/models/mlp.py` is this network; `firstlight
# profile summary mnist_mlp` prints shapes, parameters and operations of any of them. Checkpoints of a run are safetensors files with a
# checksum (`firstlight/engine/checkpoint.py`), and nothing in firstlight ever reads a pickle. `firstlight inspect health RUN` finds a
# softmax too many.
