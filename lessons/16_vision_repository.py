# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: A vision repository, and the questions it raises
#     minutes: 1
#     shows: [D1, D2, D3, D4, D11, D23]
# ---

# %% [markdown]
# # A vision repository, and the questions it raises
#
# **You will learn** how a repository for many experiments is put together: configs that build on each other, networks that are added in one
# file and one line, one loop behind two commands. And you will answer the questions that everybody asks about such code, each with a cell
# that shows it.
#
# **Before:** lesson 4 (the training loop) and lesson 13 (convolutions). **Takes** less than a minute.
#
# **Comes from** the vision repositories of courses, whose layout goes back to the code of *Swin Transformer* (Liu et al. 2021); LeNet is
# LeCun et al. (1998), AlexNet Krizhevsky et al. (2012), ResNet He et al. (2016).

# %%
import subprocess
import sys
import time

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import firstlight as fl
from firstlight.config.override import merge as merge_of_firstlight
from firstlight.config.schema import Kind
from firstlight.data.loader import Loader
from firstlight.data.normalize import Normalize, channel_statistics
from firstlight.engine.restore import normalize_of
from firstlight.errors import ConfigError
from firstlight.files import make_dir, write_text
from firstlight.limits import PositiveInt
from firstlight.models.build import MODELS
from firstlight.models.layers import count_parameters
from firstlight.notebooks.lesson import begin
from firstlight.plotting.curves import plot_curves

lesson = begin("vision_repository")
train, val = lesson.load(num_train=lesson.pick(small=1_000, full=10_000))
image_shape = tuple(train.images.shape[1:])

# %% [markdown]
# # Part 1: the repository
#
# ## Configs that build on each other
#
# An experiment is a YAML file. What several experiments share stands in a *base* file, which may have a base itself. The file nearest to
# you wins. The cell below writes three levels.

# %%
configs = make_dir(lesson.fresh("configs"))
make_dir(configs / "family")
write_text(configs / "family" / "data.yaml", f"data: {lesson.data}\ntrain: {{epochs: 2, batch_size: 64}}\n")
write_text(configs / "family" / "slow.yaml", "base: data.yaml\noptim: {name: sgd, lr: 0.01, momentum: 0.9}\n")
write_text(configs / "mine.yaml", "base: [family/slow.yaml]\nmodel: {name: mlp, hidden: [32]}\noptim: {lr: 0.05}\n")
for path in (configs / "family" / "data.yaml", configs / "family" / "slow.yaml", configs / "mine.yaml"):
    print(f"--- {path.relative_to(configs).as_posix()}\n{path.read_text()}", end="")

# %% [markdown]
# What will be trained? **Predict** `train.epochs` times `optim.lr`, if one more setting comes from the command line: `train.epochs=4`.

# %% kind="predict" name="resolved"
### BEGIN SOLUTION
guess = 4 * 0.05
### END SOLUTION

# %%
config = fl.load_config(configs / "mine.yaml", "train.epochs=4")
lesson.reveal(guess, config.train.epochs * config.optim.options["lr"], "epochs times learning rate")

# %% [markdown]
# The command says where each value comes from. It prints all settings; here are those that somebody set.

# %%
words = ["train", "mine.yaml", "train.epochs=4", "--dry-run"]
done = subprocess.run([sys.executable, "-m", "firstlight", *words], cwd=configs, capture_output=True, text=True, check=True)
print("$ firstlight", *words)
print(*(line for line in done.stdout.splitlines() if "  # " in line), sep="\n")
assert "momentum: 0.9                          # family/slow.yaml:2" in done.stdout

# %% [markdown]
# The heart of it is one function of two trees. A value of the upper tree wins; where both have a mapping, they are merged inside. There is
# one trap: if the upper one *renames* a kind (`optim: {name: adam}` over an SGD with momentum), what belonged to the old kind must go, or
# Adam would be given a momentum. Write it; settings of a kind are those beside `name`.


# %% kind="exercise" name="merge"
def merge(base, above):
    """Return the tree of settings `base` with `above` laid over it; neither is changed."""
    merged = dict(base)
    ### BEGIN SOLUTION
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        renamed = both and "name" in value and value["name"] != merged[key].get("name")
        merged[key] = merge(merged[key], value) if both and not renamed else value
    ### END SOLUTION
    return merged


# %% kind="check" name="merge" points=2
sgd = {"optim": {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "train": {"epochs": 5, "batch_size": 64}, "seed": 1}
before = str(sgd)
longer = merge(sgd, {"train": {"epochs": 9}, "seed": 2})
assert longer["seed"] == 2 and longer["train"].get("epochs") == 9, "the upper value should win"
assert longer["train"].get("batch_size") == 64, "batch_size is gone: where both are mappings, they are merged and not replaced"
assert str(sgd) == before, "the base was changed: other experiments build on it, too"
adam = merge(sgd, {"optim": {"name": "adam"}})
assert "momentum" not in adam["optim"], "Adam was given the momentum of SGD: a new name starts from nothing"
same = merge(sgd, {"optim": {"name": "sgd", "lr": 0.3}})
assert same["optim"].get("momentum") == 0.9, "the name is the same as before, so nothing of it should go"
for above in ({"optim": {"name": "adam"}}, {"optim": {"lr": 0.3}}, {"train": {"epochs": 9}, "data": {"name": "mnist"}}):
    assert merge(sgd, above) == merge_of_firstlight(sgd, above), f"firstlight/config/override.py makes something else of {above}"
print("the same trees as firstlight.config.override.merge")

# %% [markdown]
# ## A wrong key is an error
#
# A key that is misspelled and silently ignored costs a night of training. The file below has three mistakes. **Predict:** how many of them
# does one attempt report?

# %% kind="predict" name="problems"
### BEGIN SOLUTION
guess = 3
### END SOLUTION

# %%
write_text(configs / "wrong.yaml", "base: mine.yaml\noptim: {name: adam, momentum: 0.9}\ntrain: {epoch: 5, batch_size: -3}\n")
try:
    fl.load_config(configs / "wrong.yaml")
except ConfigError as error:
    message = str(error).replace(configs.as_posix() + "/", "")
print(message)
lesson.reveal(guess, len(message.splitlines()) - 1, "mistakes that are reported at once")

# %% [markdown]
# Files in the style of such courses, upper case with `BASE`, load as they are.

# %%
write_text(configs / "course.yaml", "BASE: ['mine.yaml']\nMODEL:\n  NAME: lenet\n  NUM_CLASSES: 10\nTRAIN:\n  EPOCHS: 3\n  LR: 0.02\n")
course = fl.load_config(configs / "course.yaml")
print(course.model.name, course.train.epochs, course.optim.options["lr"], course.optim.options["momentum"])
assert (course.model.name, course.train.epochs, course.optim.options["lr"], course.optim.options["momentum"]) == ("lenet", 3, 0.02, 0.9)

# %% [markdown]
# ## The networks, counted
#
# Each architecture is a file in `firstlight/models/`. On torch's `meta` device a network has shapes but no numbers, so even AlexNet costs
# nothing.
#
# AlexNet has five convolutions and three linear layers. **Predict:** which share of its parameters belongs to the linear layers?

# %% kind="predict" name="alexnet"
### BEGIN SOLUTION
guess = 0.95
### END SOLUTION

# %%
with torch.device("meta"):
    networks = {
        "lenet": MODELS["lenet"]((3, 32, 32), 10),
        "alexnet": MODELS["alexnet"]((3, 70, 70), 10),
        "resnet18": MODELS["resnet18"]((3, 32, 32), 10),
        "lenet, 200 classes": MODELS["lenet"]((3, 32, 32), 200),
        "alexnet, 200 classes": MODELS["alexnet"]((3, 70, 70), 200),
    }
linear = [layer for layer in networks["alexnet"].modules() if isinstance(layer, nn.Linear)]
lesson.reveal(guess, sum(map(count_parameters, linear)) / count_parameters(networks["alexnet"]), "share of the linear layers")
published = (83_126, 57_044_810, 11_173_962, 99_276, 57_823_240)
for (name, network), number in zip(networks.items(), published, strict=True):
    lesson.measured(f"parameters of {name}", count_parameters(network), least=number, most=number)
lesson.measured("features that AlexNet's first linear layer is given", linear[0].in_features, least=9_216, most=9_216)

# %% [markdown]
# ## Add a network: one file and one line
#
# A class whose *keyword-only* parameters are its settings; their annotations say what is allowed. The docstring has a line for each. Write
# one: flatten, a linear layer to `width` units, ReLU, a linear layer to the classes.


# %% kind="exercise" name="one_hidden"
class OneHidden(nn.Sequential):
    """One hidden layer: images [B, C, H, W] -> logits [B, num_classes].

    width: units of the hidden layer.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, *, width: PositiveInt = 64) -> None:
        ### BEGIN SOLUTION
        channels, height, width_of_image = image_shape
        hidden = nn.Linear(channels * height * width_of_image, width)
        super().__init__(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(width, num_classes))
        ### END SOLUTION


# %% kind="check" name="one_hidden" points=2
made = OneHidden((3, 5, 4), 7, width=11)
assert made(torch.zeros(2, 3, 5, 4)).shape == (2, 7), "two images of 7 classes should give logits of the shape [2, 7]"
assert count_parameters(made) == 60 * 11 + 11 + 11 * 7 + 7, f"{count_parameters(made)} parameters; 60 -> 11 -> 7 with biases has 755"
assert any(isinstance(layer, nn.ReLU) for layer in made.modules()), "without a ReLU between them two linear layers are one"
assert count_parameters(OneHidden((1, 8, 8), 10)) == 64 * 64 + 64 + 64 * 10 + 10, "the setting `width` is not what makes the layer"
print(made)

# %% [markdown]
# The one line is an entry in the dict `MODELS` of `firstlight/models/build.py`. In a notebook the same line works for as long as it runs.
# The name, its settings, their checks, their messages and the reference page all follow from the class.

# %%
MODELS["one_hidden"] = OneHidden
print(fl.load_config("quickstart", "model=one_hidden", "model.width=32").model)
assert fl.load_config("quickstart", "model=one_hidden").model == Kind("one_hidden", {"width": 64})
for wrong in ("model.width=0", "model.widht=32"):
    try:
        fl.load_config("quickstart", "model=one_hidden", wrong)
    except ConfigError as error:
        print(error)
    else:
        raise AssertionError(f"{wrong} was taken")

# %% [markdown]
# ## One loop, two commands
#
# `firstlight evaluate RUN` has labels and prints figures. `firstlight predict RUN IMAGES` has none and prints classes. Behind both is one
# generator over batches, so they cannot disagree. Write it: the network in eval mode while it answers and back in the mode it was in, no
# gradients.


# %% kind="exercise" name="answers"
def answers(model, batches):
    """Yield the logits and the labels of each batch of `batches`, which has images and labels."""
    ### BEGIN SOLUTION
    was_training = model.training
    model.eval()  # for as long as it answers
    with torch.no_grad():  # nobody will walk back
        for images, labels in batches:
            yield model(images), labels
    model.train(was_training)
    ### END SOLUTION


# %% kind="check" name="answers" points=2
asked = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 3))
pairs = [(torch.randn(2, 1, 2, 2), torch.tensor([0, 1])) for _ in range(3)]
first, again = (torch.cat([logits for logits, _ in answers(asked, pairs)]) for _ in range(2))
assert torch.equal(first, again), "the same images got two answers: dropout is on"
assert not first.requires_grad, "the answers carry gradients: memory grows with every batch"
assert asked.training, "the network was in training mode before, and is not any more"
asked.eval()
assert len(list(answers(asked, pairs))) == 3 and not asked.training, "the network was in eval mode before, and is not any more"
print("eval mode while it answers, no gradients, and the mode that it was in")

# %%
small = lesson.pick(small=2, full=3)
settings = {
    "data": lesson.data,
    "split": {"num_train": len(train.images) // 2},
    "train": {"epochs": small, "batch_size": 64, "test_at_end": False},
}
run = lesson.train("digits", "quickstart", model={"name": "one_hidden", "width": 64}, **settings)
chosen = fl.load_data(lesson.data)
loader = Loader(chosen, batch_size=500, seed=0, normalize=normalize_of(run))
found = torch.cat([logits for logits, _ in answers(fl.load_model(run), ((batch.images, batch.labels) for batch in loader.batches(0)))])
print(f"{(found.argmax(1) == chosen.labels).float().mean():.1%} of the {len(chosen):,} training images right")

# %% [markdown]
# Now the two commands on the same ten images: `evaluate` reads them from the data set, `predict` from ten PNG files, without labels.

# %%
folder = make_dir(lesson.fresh("ten_images"))
for place in range(10):
    Image.fromarray(chosen.pixels(place)).save(folder / f"{place}.png")
rows = fl.predict(run.path, [folder])
told = torch.tensor([list(row["probabilities"].values()) for row in rows])
print(*(f"{row['image'].rpartition('/')[2]}: {row['label']} ({row['probability']:.3f})" for row in rows[:3]), sep="\n")
lesson.measured("largest difference of a probability", (told - found[:10].softmax(1)).abs().max(), most=1e-5)
figures = fl.evaluate(run.path)
lesson.measured("validation accuracy by `evaluate`", figures["accuracy"], least=0.6)
lesson.measured("the same less that of the training's record", figures["accuracy"] - run.summary["val_accuracy"], least=-1e-9, most=1e-9)
lesson.show(plot_curves({"one_hidden, added in this notebook": run.epochs}), "curves")

# %% [markdown]
# # Part 2: the questions
#
# docs/courses/questions.md has them all with short answers. Here is the evidence.
#
# ## Module or functional?
#
# `nn.Conv2d` *has* weights, `F.conv2d` is *given* them; the arithmetic is the same. Take the module for what is learned, the function for
# what has no state. **Predict:** how many parameters does an optimizer find in a module that keeps two `nn.Linear(4, 4)` in a plain Python
# list?

# %% kind="predict" name="in_a_list"
### BEGIN SOLUTION
guess = 0
### END SOLUTION


# %%
class InAList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(4, 4), nn.Linear(4, 4)]  # nn.ModuleList would be right


lesson.reveal(guess, len(list(InAList().parameters())), "parameters of a module with its layers in a list")
convolution, images = nn.Conv2d(1, 3, 3), train.images[:2]
assert torch.equal(convolution(images), F.conv2d(images, convolution.weight, convolution.bias))

# %% [markdown]
# ## Dataset or DataLoader?
#
# A data set knows its images by number. A loader decides which come together, in which order, and what is done to them on the way.
# firstlight's loader makes the order a function of the seed and the epoch, so a run that was killed goes on in the middle of an epoch.

# %%
some = fl.load_data("digits").subset(torch.arange(100))
loader = Loader(some, batch_size=32, seed=7, normalize=Normalize.identity(1), shuffle=True)
epochs = [torch.cat([batch.indices for batch in loader.batches(epoch)]) for epoch in (0, 1, 0)]
print("first images of three epochs:", *(epoch[:5].tolist() for epoch in epochs))
assert not torch.equal(epochs[0], epochs[1]) and torch.equal(epochs[0], epochs[2]), "the order is no function of seed and epoch"
assert all(torch.equal(epoch.sort().values, torch.arange(100)) for epoch in epochs), "an image is missing"
resumed = torch.cat([batch.indices for batch in loader.batches(0, start=2)])
assert torch.equal(resumed, epochs[0][64:]), "starting at batch 2 is not the same as going there"

# %% [markdown]
# ## Why shuffle?
#
# Train on the same images twice: in a drawn order, and sorted by class. **Predict:** which accuracy has the second after one epoch, whose
# last batches were all of one class?

# %% kind="predict" name="sorted"
### BEGIN SOLUTION
guess = lesson.on(mnist=lesson.pick(small=0.1, full=0.12), digits=0.1)
### END SOLUTION


# %%
def after_one_epoch(order):
    torch.manual_seed(0)
    model = OneHidden(image_shape, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for rows in order.split(16):
        optimizer.zero_grad()
        F.cross_entropy(model(train.images[rows]), train.labels[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        return (model(val.images).argmax(1) == val.labels).float().mean().item()


drawn = after_one_epoch(torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(0)))
in_order = after_one_epoch(train.labels.sort(stable=True).indices)
lesson.reveal(guess, in_order, "accuracy after an epoch sorted by class")
lesson.measured("accuracy after an epoch in a drawn order", drawn, least=0.6)
lesson.measured("accuracy after an epoch sorted by class", in_order, most=0.35)

# %% [markdown]
# Validation images are not shuffled: nothing is learned from them, and in a fixed order they can be compared from run to run.
#
# ## What does `no_grad` save?
#
# To walk back through a network, autograd keeps what each layer was given. `no_grad` says that nobody will walk back.


# %%
def kept_bytes(model, images):
    """Return how many bytes autograd keeps of one forward pass, weights aside."""
    kept, weights = {}, {weight.data_ptr() for weight in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.setdefault(tensor.data_ptr(), tensor), lambda tensor: tensor):
        model(images)
    return sum(tensor.numel() * tensor.element_size() for place, tensor in kept.items() if place not in weights)


model = MODELS["small_cnn"](image_shape, 10)
with_gradients = kept_bytes(model, train.images[:100])
with torch.no_grad():
    without = kept_bytes(model, train.images[:100])
lesson.measured("MB that are kept for 100 images", with_gradients / 1e6, least=1)
lesson.measured("MB that are kept under no_grad", without / 1e6, most=0)

# %% [markdown]
# ## What do `train()` and `eval()` change?
#
# Two kinds of layers: dropout, and batch normalisation. Neither has anything to do with gradients: `eval()` does not replace `no_grad`.

# %%
model.train()
with torch.no_grad():
    alone, beside = model(val.images[:2])[0], model(val.images[[0, 5]])[0]
    assert not torch.allclose(alone, beside), "in training mode the first image's answer should depend on its neighbour"
    model.train(False)  # the same as eval()
    alone, beside = model(val.images[:2])[0], model(val.images[[0, 5]])[0]
    assert torch.allclose(alone, beside, atol=1e-5), "in eval mode it should not"
assert model(val.images[:2]).requires_grad, "eval() alone keeps gradients"
print("in training mode an image's answer depends on its batch; in eval mode it does not, and gradients are kept all the same")

# %% [markdown]
# ## What does Normalize do, and with whose numbers?
#
# It subtracts the mean and divides by the standard deviation of each channel: of the *training* images, also where validation images are
# normalised. The numbers belong to the network, like a weight; whoever measures them on the test images has looked at these.

# %%
pixels = (train.images * 255).round().to(torch.uint8)
mean, std = channel_statistics(pixels)
seen = Normalize.measure(pixels).apply(pixels)
print(f"pixels in [0, 1]: mean {mean.item():.4f}, deviation {std.item():.4f}")
lesson.measured("mean after normalisation", seen.mean(), least=-0.01, most=0.01)
lesson.measured("deviation after normalisation", seen.std(), least=0.99, most=1.01)

# %% [markdown]
# ## Softmax before the loss?
#
# `cross_entropy` takes logits and does the softmax itself. Give it probabilities and nothing complains. **Predict:** what is the smallest
# loss that a perfect network of ten classes could then reach?

# %% kind="predict" name="softmax_twice"
### BEGIN SOLUTION
guess = 1.4612
### END SOLUTION

# %%
perfect = torch.eye(10)  # the right class has probability 1
twice = F.cross_entropy(perfect, torch.arange(10)).item()
lesson.reveal(guess, twice, "loss of perfect probabilities that are taken for logits")
lesson.measured("loss of a perfect network with a softmax too many", twice, least=1.461, most=1.462)

# %% [markdown]
# ## Is accumulating gradients the same as a larger batch?
#
# Four batches of 16, their losses divided by 4, one step: the same gradient as one batch of 64, in a quarter of the memory. Unless batch
# normalisation is in training mode, which sees 16 images at a time.

# %%
model = OneHidden(image_shape, 10)
F.cross_entropy(model(train.images[:64]), train.labels[:64]).backward()
whole = [weight.grad.clone() for weight in model.parameters()]
model.zero_grad()
for rows in torch.arange(64).split(16):
    (F.cross_entropy(model(train.images[rows]), train.labels[rows]) / 4).backward()
apart = max((one - weight.grad).abs().max().item() for one, weight in zip(whole, model.parameters(), strict=True))
lesson.measured("largest difference of a gradient", apart, most=1e-6)

# %% [markdown]
# ## `num_workers` and `pin_memory`?
#
# Workers hide the time of reading and decoding; pinned memory lets a copy to a GPU run while the GPU computes. Neither helps where the
# images lie in memory as one tensor: then fetching single images and stacking them is what costs. Time an epoch of each.

# %% varies=true
from torch.utils.data import DataLoader, TensorDataset

few = slice(0, 1_000)
tensors = TensorDataset(train.images[few], train.labels[few])
began = time.perf_counter()
for _ in DataLoader(tensors, batch_size=64, shuffle=True):
    pass
one_by_one = time.perf_counter() - began
resident = Loader(
    fl.make_dataset(pixels[few], train.labels[few], chosen.class_names, "some"),
    batch_size=64,
    seed=0,
    normalize=Normalize.identity(1),
    shuffle=True,
)
list(resident.batches(0))
began = time.perf_counter()
for _ in resident.batches(1, reuse_buffers=True):
    pass
at_once = time.perf_counter() - began
print(f"an epoch of 1,000 images: {1000 * one_by_one:.1f} ms one by one, {1000 * at_once:.1f} ms by index, normalised")
print("a GPU is here" if torch.cuda.is_available() else "no GPU is here, so pinned memory would change nothing")

# %% [markdown] kind="answer" name="which_numbers" points=2
# A colleague normalises the test images with the mean and deviation of the test images, "because they are a little darker". What is wrong
# with that, and what should she do?
#
# ### BEGIN SOLUTION
# The network has learned what a pixel value means under the training images' numbers; under others it sees something else, and the test no
# longer says what happens to a single new image, which has no statistics of its own. And it looks at the test set. She should keep the
# training numbers; if the camera is darker, that is a shift which augmentation (brightness) or new training images must cover.
# ### END SOLUTION

# %% [markdown] kind="answer" name="grad_or_eval" points=1
# Someone evaluates with `model.eval()` and without `no_grad`, and runs out of memory although training fits. Why?
#
# ### BEGIN SOLUTION
# eval() switches dropout and batch normalisation, and has nothing to do with gradients: every batch's graph is kept for as long as a result
# (such as a sum of losses that are still tensors) refers to it. In training the graph is freed by backward() at each step.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# `firstlight/config/load.py` reads configs, `override.py` merges them; `docs/architecture.md` has the picture of the house and both recipes
# (a network, a data set); `firstlight/engine/evaluate.py` has the one loop, `logits_of`; `docs/courses/questions.md` has all questions.
#
# - `firstlight train CONFIG key=value --dry-run` shows what would be trained, and where each value was set.
# - `firstlight profile summary lenet` counts a network layer by layer.
# - `firstlight train lenet_sigmoid` is the course's first experiment on CIFAR-10, `firstlight train lenet` the same with ReLU.
# - `firstlight evaluate RUN` and `firstlight predict RUN IMAGES` are the two commands.
