# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
#   firstlight:
#     title: Mistakes, and knowing that one does not know
#     minutes: 2
#     shows: [B9, B10, B17, C9]
# ---

# %% [markdown]
# # Mistakes, and knowing that one does not know
#
# **You will learn** to look at what a network gets wrong and to ask why, to check whether its probabilities can be believed, to measure how
# far it doubts its own answer, and to use all that: let the network answer what it knows, and hand the rest to a person.
#
# **Before:** lesson 7 (dropout) and lesson 12 (validation). **Takes** about a minute.
#
# **Comes from** Gal and Ghahramani (2016), *Dropout as a Bayesian approximation*; Houlsby et al. (2011) for the mutual information; Guo et
# al. (2017), *On calibration of modern neural networks*; Geifman and El-Yaniv (2017), *Selective classification for deep neural networks*.

# %%
import numpy as np
import torch

from firstlight.inspection.answers import answers_of
from firstlight.inspection.dropout_passes import passes_of
from firstlight.inspection.mistakes import confused_pairs, describe_pair, inspect_mistakes
from firstlight.inspection.neighbours import nearest
from firstlight.inspection.opened import opened
from firstlight.inspection.penultimate import features_of
from firstlight.inspection.saliency import saliency_of
from firstlight.metrics import calibration
from firstlight.metrics.uncertainty import PassTotals, area_under_roc
from firstlight.notebooks.lesson import begin
from firstlight.plotting.calibration import Bars, plot_reliability, plot_risk_coverage
from firstlight.plotting.confusion import plot_confusion
from firstlight.plotting.embedding import plot_embedding
from firstlight.plotting.images import plot_class_bars, plot_predictions
from firstlight.plotting.mistakes import plot_mistakes
from firstlight.plotting.uncertainty import plot_image_uncertainty, plot_uncertainty

lesson = begin("mistakes")

# %% [markdown]
# ## A network that makes mistakes
#
# A network that is right on 99 of 100 images leaves little to look at, so this one gets few training images. It has batch normalisation and
# dropout, which both come in later. The validation images are many: they are only looked at.

# %%
run = lesson.train(
    "with_dropout",
    "mnist_mlp",
    data=lesson.data,
    split={
        "val_fraction": lesson.on(mnist=lesson.pick(small=0.05, full=1 / 6), digits=0.5),
        "num_train": lesson.on(mnist=lesson.pick(small=1_000, full=5_000), digits=300),
    },
    model={"hidden": [128, 64], "norm": "before", "dropout": 0.3},
    train={"epochs": lesson.pick(small=12, full=30), "batch_size": 64},
)
with opened(run.path, "answers") as look:
    answers = answers_of(look)
names, val = look.dataset.class_names, look.dataset
print(f"{run.info['data']['num_train']:,} training images, {answers.correct.mean():.1%} of {len(answers):,} validation images right")

# %% [markdown]
# ## The worst mistakes
#
# The loss of an image is $-\log p$ of its true class. A mistake of a large loss is one that the network was sure of. Write the list.


# %% kind="exercise" name="worst_first"
def worst_first(logits, labels):
    """Return the places of all mistakes, int64 [M], the one with the largest loss first. logits: float [N, K]; labels: int64 [N]."""
    ### BEGIN SOLUTION
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    wrong = (logits.argmax(1) != labels).nonzero().squeeze(1)
    return wrong[losses[wrong].argsort(descending=True)]
    ### END SOLUTION


# %% kind="check" name="worst_first" points=1
logits, labels = torch.from_numpy(answers.logits), torch.from_numpy(answers.labels)
worst = worst_first(logits, labels)
told = inspect_mistakes(run.path, num=10)
assert len(worst) == told["num_mistakes"], f"{len(worst)} mistakes are listed, and there are {told['num_mistakes']}: right answers are none"
losses = [answers.row(place)["loss"] for place in worst.tolist()]
assert losses != sorted(losses) or len(set(losses)) == 1, "the smallest loss stands first: sort the other way"
assert losses == sorted(losses, reverse=True), "the list is not in the order of the loss -log p(true class)"
assert {row["index"] for row in told["mistakes"]} == set(worst[:10].tolist()), "other images than those of `firstlight inspect mistakes`"
print(f"{len(worst):,} mistakes, the worst with a loss of {losses[0]:.1f} nats")

# %% [markdown]
# The worst ten: predicted class with its probability, below it the truth. Which of them would you have got right?

# %%
ten = worst[:10].tolist()
probabilities = logits.softmax(1)
sheet = plot_predictions(
    [val.pixels(place) for place in ten],
    [names[labels[place]] for place in ten],
    [names[answers.predicted[place]] for place in ten],
    [answers.row(place)["probability"] for place in ten],
    title="The ten mistakes of the largest loss",
)
lesson.show(sheet, "worst")
lesson.measured("probability that the ten worst mistakes had on average", probabilities[ten].amax(1).mean(), least=0.6)

# %% [markdown]
# One image beside the probability of each class: first the worst mistake, then the image of which the network was least sure.

# %%
unsure = int(probabilities.amax(1).argmin())
for name, place in (("worst_bars", ten[0]), ("unsure_bars", unsure)):
    title = f"Image {place}: {names[answers.predicted[place]]} with probability {probabilities[place].max():.2f}"
    lesson.show(plot_class_bars(val.pixels(place), names, probabilities[place].tolist(), label=names[labels[place]], title=title), name)

# %% [markdown]
# ## Which class is taken for which?
#
# **Predict** the commonest confusion, written as `4 taken for 9`.

# %% kind="predict" name="pair"
### BEGIN SOLUTION
guess = lesson.on(mnist="4 taken for 9", digits="8 taken for 1")
### END SOLUTION

# %%
pairs = confused_pairs(answers)
lesson.reveal(guess, describe_pair(pairs[0]).partition(" (")[0], "the commonest confusion")
for pair in pairs[:5]:
    print(describe_pair(pair))
lesson.show(plot_confusion(answers.evaluation().matrix, names, title="True class in rows, prediction in columns"), "confusion")
lesson.measured(
    "share of the mistakes in the five commonest confusions", sum(pair["images"] for pair in pairs[:5]) / len(worst), least=0.15
)

# %% [markdown]
# Five of ninety pairs would hold 6 % of the mistakes if all were equally common. They hold far more: mistakes have reasons.
#
# ## Why? Ask the training images
#
# In front of its last layer the network has turned an image into 64 numbers, its *features*. Images whose features point the same way look
# the same to it. So the training images nearest to a mistake say what the network took it for: find them. Nearness is the cosine of the
# angle.


# %% kind="exercise" name="most_similar"
def most_similar(queries, features, num):
    """Return the places of the `num` features [N, D] of the largest cosine with each query [M, D], nearest first, int64 [M, num]."""
    ### BEGIN SOLUTION
    queries = queries / queries.norm(dim=1, keepdim=True)
    features = features / features.norm(dim=1, keepdim=True)
    return (queries @ features.T).topk(num, dim=1).indices
    ### END SOLUTION


# %% kind="check" name="most_similar" points=2
training = look.training_images()
seen = features_of(look.model, look.loader(training), look.arithmetic)
asked = features_of(look.model, look.loader(val.subset(worst[:50])), look.arithmetic)
found = most_similar(asked, seen, 5)
assert found.shape == (len(asked), 5), f"the result has the shape {list(found.shape)}: a row a query, a column a neighbour"
expected = nearest(asked, [(seen, torch.arange(len(seen)))], num=5)
assert not torch.equal(found, (asked @ seen.T).topk(5).indices), "that is the largest product: longer features win, divide by the lengths"
assert found[0, 0] != expected.indices[0, -1], "the farthest of the five stands first"
cosine = torch.nn.functional.cosine_similarity(asked[:, None], seen[found], dim=2)
assert (cosine - expected.similarity).abs().max() < 1e-5, "other training images are nearer: is it the cosine, over all of them?"
print("the same neighbours as firstlight.inspection.neighbours.nearest")

# %%
mistakes = []
maps = saliency_of(look.model, look.loader(val.subset(worst[:6]))).numpy()
for place, index in enumerate(worst[:6].tolist()):
    near = expected.indices[place, :3].tolist()
    pictures = {"image": val.pixels(index), "neighbours": [training.pixels(other) for other in near], "saliency": maps[place]}
    labelled = {"neighbour_labels": [names[training.labels[other]] for other in near], "suspect": False}
    mistakes.append({**answers.row(index), **pictures, **labelled, "neighbour_similarity": expected.similarity[place, :3].tolist()})
lesson.show(plot_mistakes(mistakes, title="Six mistakes, the training images nearest to each, and the pixels that counted"), "why")
near_labels = training.labels[expected.indices]
as_predicted = (near_labels == torch.from_numpy(answers.predicted)[worst[:50], None]).float().mean()
lesson.measured("features of an image", seen.shape[1], least=64, most=64)
lesson.measured("share of the neighbours of mistakes that have the predicted class", as_predicted, least=0.5)

# %% [markdown]
# The features of all validation images on a map: the two directions in which they vary most (principal components). Mistakes are ringed;
# they lie where two classes touch. `firstlight inspect embedding RUN --method tsne` draws the map that the t-SNE of van der Maaten and
# Hinton (2008) makes.

# %%
some = torch.arange(min(1_000, len(val)))
features = features_of(look.model, look.loader(val.subset(some)), look.arithmetic)
_, _, directions = torch.linalg.svd(features - features.mean(0), full_matrices=False)
points = (features - features.mean(0)) @ directions[:2].T
axes = ("first principal component", "second principal component")
lesson.show(
    plot_embedding(points.numpy(), answers.labels[some], answers.predicted[some], names, axes=axes, title="What the last layer is given"),
    "features",
)

# %% [markdown]
# ## Can the probabilities be believed?
#
# Of all images to which a network gives a probability of about 0.8, four in five should be right. To check that, sort the images into bins
# by the probability of the predicted class (the *confidence*). In each bin compare the mean confidence with the share that was right. The
# mean of these gaps, each weighted with the share of images in its bin, is the *expected calibration error*.


# %% kind="exercise" name="ece"
def expected_calibration_error(confidence, correct, num_bins=15):
    """Return the expected calibration error over bins of equal width. confidence: float [N] in (0, 1]; correct: bool [N]; numpy arrays."""
    ### BEGIN SOLUTION
    which = np.ceil(confidence * num_bins)
    total = 0.0
    for number in np.unique(which):
        inside = which == number
        total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return total
    ### END SOLUTION


# %% kind="check" name="ece" points=2
sure = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
right = np.array([True, True, True, False, True, False])
found = expected_calibration_error(sure, right, num_bins=10)
assert abs(found - 0.125) > 1e-6, "each bin counts the same: weigh it with its share of the images"
assert abs(found - 0.25) > 1e-6, "the gaps are added up: weigh them with the share of the images"
assert abs(found - (4 * 0.2 + 2 * 0.05) / 6) < 1e-6, f"{found:.4f} for gaps of 0.20 (4 images) and 0.05 (2 images), which makes 0.15"
opposite = expected_calibration_error(np.array([0.85, 0.25]), np.array([False, True]), num_bins=10)
assert abs(opposite - 0.8) < 1e-6, f"{opposite:.2f} for gaps of 0.85 and -0.75: too sure and too unsure do not cancel out"
confidence = answers.figures["probability"]
expected = calibration.reliability(confidence, answers.correct)
found = expected_calibration_error(confidence, answers.correct)
assert abs(found - expected.ece) < 1e-6, f"{found:.5f}, and firstlight.metrics.calibration has {expected.ece:.5f}: are the bins as wide?"
print(f"calibration error of the network with dropout: {found:.2%}")

# %% [markdown]
# Now a second network on the same images: no dropout, no batch normalisation, and trained until it knows its training images by heart.
#
# **Predict:** on validation images, is it *more sure than right* (write "too sure") or *more right than sure* ("not sure enough")?

# %% kind="predict" name="too_sure"
### BEGIN SOLUTION
guess = "too sure"
### END SOLUTION

# %%
by_heart = lesson.train(
    "by_heart",
    "mnist_mlp",
    data=lesson.data,
    split=run.config["split"],
    model={"hidden": [128, 64]},
    train={"epochs": lesson.pick(small=20, full=40), "batch_size": 64},
)
with opened(by_heart.path, "answers", which="last") as other:
    memorised = answers_of(other)
first = calibration.reliability(memorised.figures["probability"], memorised.correct)
lesson.reveal(guess, "too sure" if first.bias > 0 else "not sure enough", "the network that knows its training images by heart is")
lesson.measured("its training accuracy at the end", by_heart.epochs[-1]["train_accuracy"], least=0.995)
lesson.measured("its mean confidence less its accuracy", first.bias, least=0.005)
lesson.measured("its calibration error", first.ece, least=0.01)
lesson.measured("calibration error with dropout", expected.ece, most=lesson.on(mnist=0.06, digits=0.1))

# %% [markdown]
# There is a cure that changes no answer: divide all logits by one number, the *temperature*, chosen on images that are not used for
# anything else. Here one half of the validation images chooses it, and the other half shows what it does.

# %%
half = len(memorised) // 2
temperature = calibration.fit_temperature(memorised.logits[:half], memorised.labels[:half])
parts = []
for name, divided_by in (("as trained", 1.0), (f"divided by {temperature:.2f}", temperature)):
    bins = calibration.reliability(calibration.confidences(memorised.logits[half:], divided_by), memorised.correct[half:])
    parts.append(Bars(name, bins.lows, bins.highs, bins.counts, bins.confidence, bins.accuracy, bins.ece))
lesson.show(plot_reliability(parts, title="Confidence against accuracy, before and after temperature scaling"), "reliability")
lesson.measured("temperature", temperature, least=1.05)
lesson.measured("calibration error after over before", parts[1].ece / parts[0].ece, most=0.9)

# %% [markdown]
# ## Ask a hundred networks
#
# Dropout silences units at random while the network learns, and is off afterwards. Leave it **on** while it answers, and each pass is
# another network of the same family. Where the passes disagree, the training images did not settle the answer. This is *Monte-Carlo
# dropout*.
#
# Only dropout may be on. Batch normalisation must stay in eval mode: in training mode an image's answer would depend on which other images
# happen to stand in its batch, and every pass would change the running statistics of the network.


# %% kind="exercise" name="dropout_passes"
def dropout_passes(model, images, num_passes):
    """Return the probabilities of each pass, float [T, N, K]. The model is in eval mode before and after. images: [N, C, H, W]."""
    ### BEGIN SOLUTION
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Dropout)]
    for layer in layers:
        layer.train()
    with torch.no_grad():
        passes = torch.stack([model(images).softmax(1) for _ in range(num_passes)])
    for layer in layers:
        layer.eval()
    return passes
    ### END SOLUTION


# %% kind="check" name="dropout_passes" points=2
model, batch = look.model.eval(), look.normalize.apply(val.images[:200])
buffers = {name: value.clone() for name, value in model.named_buffers()}
torch.manual_seed(0)
passes = dropout_passes(model, batch, 60)
assert passes.shape == (60, len(batch), 10), f"the shape is {list(passes.shape)}: passes, images, classes"
assert not passes.requires_grad, "the passes carry gradients: nothing is learned here, so use torch.no_grad()"
assert (passes.sum(2) - 1).abs().max() < 1e-4, "the rows do not add up to 1: logits are no probabilities yet"
assert not torch.equal(passes[0], passes[1]), "all passes are equal: the dropout layers are still in eval mode"
kept = all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
assert kept, "batch norm's running statistics have changed: only the dropout layers should be in training mode"
assert not any(layer.training for layer in model.modules()), "a layer is still in training mode: every later answer would be random"
theirs = torch.stack(
    [logits for _, _, logits in passes_of(model, look.loader(val.subset(torch.arange(200))), look.arithmetic, num_passes=60, seed=1)]
)
apart = (passes.mean(0) - theirs.softmax(2).mean(0)).abs().mean().item()
assert apart < 0.02, f"the mean probabilities are {apart:.3f} away from those of firstlight.inspection.dropout_passes"
print("60 passes, all different; the network is as it was")

# %% [markdown]
# Look at one image: the one that the network was least sure of. **Predict:** of all passes over it, which share takes it for the commonest
# class?

# %% kind="predict" name="votes"
### BEGIN SOLUTION
guess = lesson.on(mnist=0.24, digits=0.35)
### END SOLUTION

# %%
num_passes = lesson.pick(small=20, full=100)
torch.manual_seed(0)
inputs = look.normalize.apply(val.images)
passes = dropout_passes(look.model, inputs, num_passes)
votes = torch.nn.functional.one_hot(passes.argmax(2), 10).sum(0)
lesson.reveal(guess, (votes[unsure].max() / num_passes).item(), "share of the passes that choose the commonest class")
figure = plot_image_uncertainty(
    val.pixels(unsure),
    names,
    votes[unsure].numpy(),
    passes[:, unsure].double().numpy(),
    label=names[labels[unsure]],
    title=f"Image {unsure} in {num_passes} passes",
)
lesson.show(figure, "passes")
lesson.measured("classes that at least one pass chose", (votes[unsure] > 0).sum(), least=2)

# %% [markdown]
# ## Two kinds of doubt
#
# The *entropy* of probabilities $p$ is $H(p) = -\sum_k p_k \log p_k$: 0 for a sure answer, $\log 10 = 2.30$ nats where all ten classes are
# alike.
#
# - **Predictive entropy**, $H(\bar p)$ of the mean over all passes: all that is not known.
# - **Mutual information**, $H(\bar p)$ less the mean of the entropies of the single passes: how far the passes *disagree*. More training
#   images would lower this part. The rest is doubt that each pass has by itself, as for a digit that could be read either way.


# %% kind="exercise" name="doubt"
def doubt(passes):
    """Return predictive entropy and mutual information in nats, float [N] each, of the probabilities of T passes, float [T, N, K]."""
    ### BEGIN SOLUTION
    mean = passes.mean(0)
    predictive = -(mean * mean.clamp(min=1e-30).log()).sum(1)
    expected = -(passes * passes.clamp(min=1e-30).log()).sum(2).mean(0)
    return predictive, predictive - expected
    ### END SOLUTION


# %% kind="check" name="doubt" points=2
coin = torch.tensor([0.5, 0.5])
first_class, second_class = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
agreeing, arguing = torch.stack([coin, coin]), torch.stack([first_class, second_class])
entropy, information = doubt(torch.stack([agreeing, arguing], dim=1))
assert not entropy.isnan().any() and not information.isnan().any(), "0 * log 0 is 0, and came out as nan"
assert (entropy - 0.6931).abs().max() < 1e-3, f"{entropy.tolist()}: both means are (0.5, 0.5), whose entropy is ln 2 = 0.693 nats"
assert information[0].abs() < 1e-5, f"{information[0]:.3f}: two passes that both say (0.5, 0.5) do not disagree"
assert (information[1] - 0.6931).abs() < 1e-3, f"{information[1]:.3f}: two sure passes that disagree have ln 2 of mutual information"
entropy, information = doubt(passes.double())
totals = PassTotals.joined([PassTotals.of(passes[0].double().log())])
for one in passes[1:]:
    totals.add(PassTotals.of(one.double().log()))
assert (entropy - totals.predictive_entropy).abs().max() < 1e-6, "the predictive entropy differs from firstlight.metrics.uncertainty"
assert (information - totals.mutual_information).abs().max() < 1e-6, "the mutual information differs from firstlight.metrics.uncertainty"
print(f"of {entropy.mean():.3f} nats on average, the passes disagree about {information.mean():.3f}")

# %% [markdown]
# Does doubt find mistakes? Draw one wrong and one right answer at random: the *AUROC* is the probability that the wrong one has the larger
# doubt. 0.5 is chance. The last bar is the entropy of one look without dropout, which costs as much as a single pass.

# %%
mean = passes.double().mean(0)
wrong = mean.argmax(1) != labels
plain_entropy = torch.special.entr(probabilities.double()).sum(1)
scores = {"predictive_entropy": entropy, "mutual_information": information, "entropy_without_dropout": plain_entropy}
areas = {name: area_under_roc(score, wrong) for name, score in scores.items()}
arrays = {name: score.numpy() for name, score in scores.items()}
lesson.show(plot_uncertainty(arrays, wrong.numpy(), areas, title=f"Doubt of right and of wrong answers, {num_passes} passes"), "doubt")
for name, area in areas.items():
    lesson.measured(f"AUROC of {name.replace('_', ' ')}", area, least=0.8)
one_look_less = areas["predictive_entropy"] - areas["entropy_without_dropout"]
lesson.measured("AUROC of all passes less that of one look", one_look_less, least=-0.05, most=0.05)
lesson.measured("predictive entropy of wrong over right answers", entropy[wrong].mean() / entropy[~wrong].mean(), least=2)

# %% [markdown]
# So doubt is worth much, and most of it is there without dropout: one honest look tells mistakes nearly as well as all passes together.
#
# ## What doubt cannot do
#
# Turn black and white round. A person reads such a digit at once; to the network it is like nothing it has seen, and it ought to say so.
# **Predict:** what share of these images does it still answer with a mean probability above 0.7?

# %% kind="predict" name="inverted"
### BEGIN SOLUTION
guess = lesson.on(mnist=0.36, digits=0.05)
### END SOLUTION

# %%
torch.manual_seed(0)
strange = dropout_passes(look.model, look.normalize.apply(255 - val.images[:1_000]), num_passes)
sure_of_it = (strange.mean(0).amax(1) > 0.7).float().mean().item()
lesson.reveal(guess, sure_of_it, "share of inverted digits that it is sure of")
strange_right = (strange.mean(0).argmax(1) == labels[:1_000]).float().mean()
lesson.measured("accuracy on inverted digits", strange_right, most=0.7)
lesson.measured("share of inverted digits that it is sure of", sure_of_it, least=0.02)
lesson.measured("predictive entropy on inverted over usual digits", doubt(strange.double())[0].mean() / entropy.mean(), least=1.5)

# %% [markdown] kind="answer" name="limits" points=2
# The doubt rose on inverted digits, and yet some of them were answered wrongly without much of it. What does that mean for a network that
# reads numbers from cheques all day?
#
# ### BEGIN SOLUTION
# Doubt is learned from training images, and says how an image compares to these. It finds hard digits among ordinary ones. It is no guard
# against another world: an inverted scan, a letter, a broken camera. Such input must be looked for by other means, such as the statistics
# of the pixels, and the network be tested on what it will really be given.
# ### END SOLUTION

# %% [markdown]
# ## Leave out what it does not know
#
# Sort all images by confidence and let the network answer only the surest part (its *coverage*). The error among these is the *risk*.
# **Predict:** it may hand the tenth of which it is least sure to a person. What becomes of the error: which share of all mistakes is left
# among the other nine tenths?

# %% kind="predict" name="left"
### BEGIN SOLUTION
guess = lesson.on(mnist=0.3, digits=0.25)
### END SOLUTION

# %%
coverage, risk = calibration.risk_coverage(confidence, answers.correct)
kept = int(0.9 * len(risk)) - 1
left = risk[kept] * (kept + 1) / len(worst)
lesson.reveal(guess, left, "share of the mistakes among the surest nine tenths")
area = calibration.area_under_risk_coverage(risk)
lesson.show(plot_risk_coverage(coverage, risk, aurc=area, title="Error among the images that are answered"), "coverage")
lesson.measured("error where all is answered", risk[-1], least=0.005)
lesson.measured("error among the surest nine tenths over that", risk[kept] / risk[-1], most=0.7)

# %% [markdown] kind="answer" name="which_doubt" points=1
# Two images have the same predictive entropy. The first has nearly no mutual information, the second a lot. For which of them would you
# collect more training images like it?
#
# ### BEGIN SOLUTION
# For the second. There the passes disagree: the training images leave more than one answer open, and more of them would settle it. In the
# first every pass is unsure by itself, as for a digit that two people read differently; more images will not make it clearer.
# ### END SOLUTION

# %% [markdown]
# ## Where this stands in firstlight
#
# - `firstlight inspect mistakes RUN` draws the worst with their neighbours, and names labels that may be wrong
#   (`firstlight/inspection/mistakes.py`).
# - `firstlight inspect confusion RUN` has the matrix, the reliability diagram, the temperature and risk against coverage.
# - `firstlight inspect predictions RUN --image 12` draws one image beside its bars, `firstlight inspect embedding RUN` the map of the
#   features.
# - `firstlight inspect uncertainty RUN` makes the passes; `firstlight/inspection/dropout_passes.py` does what lies before the first dropout
#   only once.
