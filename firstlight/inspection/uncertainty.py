"""How sure a network is of its answers, by Monte-Carlo dropout (Gal and Ghahramani 2016): of one image, or over a whole split."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstlight.engine.evaluate import logits_of, predict_probabilities
from firstlight.errors import ConfigError
from firstlight.files import write_pictures
from firstlight.inspection.dropout_passes import dropout_layers, passes_of
from firstlight.inspection.one_image import one_image
from firstlight.inspection.opened import Opened, opened
from firstlight.metrics.uncertainty import PassTotals, area_under_roc
from firstlight.models.build import MODELS
from firstlight.plotting.images import plot_predictions
from firstlight.plotting.uncertainty import plot_image_uncertainty, plot_uncertainty
from firstlight.tracking.console import Console
from firstlight.tracking.csv_table import write_csv
from firstlight.tracking.table import print_table

SCORES = ("predictive_entropy", "mutual_information", "expected_entropy", "entropy_without_dropout")
"""What tells how unsure an answer is, in nats; the last needs no dropout, and is there to be compared with."""


def uncertainty(
    run: str | Path,
    *,
    image: str | None = None,
    num_passes: int = 100,
    num: int = 20,
    split: str = "val",
    runs_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Send images `num_passes` times through a run's network with its dropout on, write pictures and a table, return the figures.

    image: a place in the split or an image file, which is then looked at alone; num: images on the sheet of the most uncertain.
    Raises ConfigError for a network without dropout.
    """
    if num_passes < 2 or num < 1:
        raise ConfigError(f"--passes is {num_passes} and --num {num}; allowed are 2 passes and 1 image, or more")
    with opened(run, "uncertainty", split=split, runs_dir=runs_dir, data_dir=data_dir) as found:
        refuse_without_dropout(found)
        if image is not None:
            return look_at_image(*one_image(found, image), num_passes)
        return look_at_split(found, num_passes, num, console or Console(quiet=True))


def refuse_without_dropout(opened: Opened) -> None:
    """Raise ConfigError where no layer of the network drops anything; it says which setting would."""
    if dropout_layers(opened.model):
        return
    kind = opened.config.model
    if "dropout" in kind.options:
        why = f"was trained with model.dropout={kind.options['dropout']:g}; train it with model.dropout=0.3"
    else:
        others = [name for name, make in MODELS.items() if "dropout" in (getattr(make.__init__, "__kwdefaults__", None) or {})]
        why = f"has the network {kind.name}, which has no dropout; train one of {', '.join(others)} with model.dropout=0.3"
    raise ConfigError(f"run {opened.run.path} {why}, and look again")


def look_at_image(opened: Opened, called: str, num_passes: int) -> dict[str, Any]:
    """Draw and return what the passes say of one image."""
    passes = [
        logits for _, _, logits in passes_of(opened.model, opened.loader(), opened.arithmetic, num_passes=num_passes, seed=_seed(opened))
    ]
    probabilities = torch.cat(passes).cpu().double().softmax(1)
    totals = PassTotals.of(torch.cat(passes))
    votes, names = totals.votes.sum(0), opened.dataset.class_names
    winner = int(torch.argmax(votes + probabilities.mean(0) / 2))  # of as many votes, the larger mean decides
    plain = predict_probabilities(opened.model, opened.loader(), opened.arithmetic)[0]
    opened.refuse_nonfinite(probabilities)
    whole = PassTotals(probabilities.sum(0, keepdim=True), totals.entropies.sum(0, keepdim=True), votes[None], num_passes)
    label = None if opened.dataset.labels is None else names[int(opened.dataset.labels[0])]
    own = probabilities[:, winner]
    true = "" if label is None else f" (true: {label})"
    says = (
        f"{int(votes[winner])} of {num_passes} passes take {called}{true} for {names[winner]}, "
        f"with a probability from {own.min():.2f} to {own.max():.2f}; without dropout {names[int(plain.argmax())]} {plain.max():.2f}"
    )
    pictures = write_pictures(
        opened.stem, plot_image_uncertainty(opened.dataset.pixels(0), names, votes.numpy(), probabilities.numpy(), label=label, title=says)
    )
    columns = tuple(f"p_{name}" for name in names)  # a class may be called `pass`
    rows = [{"pass": number, "predicted": names[int(row.argmax())]} | _by_class(columns, row) for number, row in enumerate(probabilities)]
    table = write_csv(opened.stem.with_name(f"{opened.stem.name}.csv"), rows)
    quantiles = own.quantile(torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0], dtype=torch.float64)).tolist()
    figures = {
        "says": says,
        "image": called,
        "label": label,
        "num_passes": num_passes,
        "predicted": names[winner],
        "votes": dict(zip(names, votes.tolist(), strict=True)),
        "mean_probabilities": _by_class(names, whole.mean[0]),
        "probability": dict(zip(("min", "p05", "median", "p95", "max"), quantiles, strict=True)),
        "without_dropout": {"predicted": names[int(plain.argmax())], "probability": float(plain.max())},
        **{score: float(getattr(whole, score)) for score in SCORES[:3]},
    }
    return opened.keep(figures, [*pictures, table])


def look_at_split(opened: Opened, num_passes: int, num: int, console: Console) -> dict[str, Any]:
    """Draw and return how unsure the answers to all images of a split are, and whether that tells which are wrong."""
    labels, names = opened.dataset.labels, opened.dataset.class_names
    assert labels is not None
    answers = split_answers(opened, num_passes, console)
    scores, predicted, probability = answers.scores, answers.predicted, answers.probability
    opened.refuse_nonfinite(*scores.values())
    wrong, wrong_once = predicted != labels, answers.without_dropout != labels
    found = {score: area_under_roc(values, wrong_once if score == SCORES[3] else wrong) for score, values in scores.items()}
    means = {score: {"right": _mean(values[~wrong]), "wrong": _mean(values[wrong])} for score, values in scores.items()}
    figures = {
        "num_passes": num_passes,
        "accuracy": 1 - float(wrong.double().mean()),
        "accuracy_without_dropout": float((answers.without_dropout == labels).double().mean()),
        "num_mistakes": int(wrong.sum()),
        "auroc": found,
        "means": means,
    }
    says = say_split(figures, len(labels), len(names))
    arrays = {score: values.numpy() for score, values in scores.items()}
    pictures = write_pictures(
        opened.stem, plot_uncertainty(arrays, wrong.numpy(), found, title=f"{opened.run.name}, {opened.split}: {says}")
    )
    entropy = scores["predictive_entropy"]
    chosen = entropy.sort(descending=True, stable=True).indices[:num]
    sheet = plot_predictions(
        [opened.dataset.pixels(index) for index in chosen.tolist()],
        [names[label] for label in labels[chosen].tolist()],
        [names[label] for label in predicted[chosen].tolist()],
        probability[chosen].tolist(),
        title=f"The {len(chosen)} images of {opened.split} with the largest predictive entropy, {entropy[chosen[0]]:.2f} to "
        f"{entropy[chosen[-1]]:.2f} nats; {int(wrong[chosen].sum())} of them are mistakes",
    )
    pictures += write_pictures(opened.stem.with_name(f"{opened.stem.name}-sheet"), sheet)

    def row(index: int) -> dict[str, Any]:
        return {
            "image": index,
            "label": names[int(labels[index])],
            "predicted": names[int(predicted[index])],
            "probability": float(probability[index]),
            "votes": int(answers.votes[index]),
            **{score: float(values[index]) for score, values in scores.items()},
        }

    table = write_csv(opened.stem.with_name(f"{opened.stem.name}.csv"), map(row, range(len(labels))))
    most = [row(index) for index in chosen.tolist()]
    return opened.keep({"says": says, **figures, "most_uncertain": most}, [*pictures, table])


@dataclass(frozen=True)
class SplitAnswers:
    """What is kept of each image of a split, on the CPU: 64 bytes, however many classes and passes there are.

    predicted: int64 [N], the class with the largest mean probability, which is `probability`, float64 [N]; votes: int64 [N], passes that
    chose it. scores: float64 [N] of each of SCORES. without_dropout: int64 [N], the answer of one look.
    """

    predicted: Tensor
    probability: Tensor
    votes: Tensor
    scores: dict[str, Tensor]
    without_dropout: Tensor

    @classmethod
    def room_for(cls, num: int) -> "SplitAnswers":
        """Return answers that are yet to be filled in."""
        predicted, votes, without_dropout = (torch.zeros(num, dtype=torch.int64) for _ in range(3))
        probability, *scores = (torch.zeros(num, dtype=torch.float64) for _ in range(1 + len(SCORES)))
        return cls(predicted, probability, votes, dict(zip(SCORES, scores, strict=True)), without_dropout)

    def put(self, rows: slice, totals: PassTotals) -> None:
        """Fill in what the passes over a batch say."""
        self.probability[rows], self.predicted[rows] = totals.mean.max(1)
        self.votes[rows] = totals.votes.gather(1, self.predicted[rows, None]).squeeze(1)
        for score in SCORES[:3]:
            self.scores[score][rows] = getattr(totals, score)


def split_answers(opened: Opened, num_passes: int, console: Console) -> SplitAnswers:
    """Return what all passes over the split say, and one look without dropout; a batch of passes is in memory at a time."""
    found, loader, begin = SplitAnswers.room_for(len(opened.dataset)), opened.loader(), 0
    with console.progress(f"{num_passes} passes over {len(opened.dataset):,} images", loader.num_batches * num_passes) as bar:
        passes = passes_of(opened.model, loader, opened.arithmetic, num_passes=num_passes, seed=_seed(opened))
        for done, (_, number, logits) in enumerate(passes, 1):
            totals = PassTotals.of(logits)
            if number == 0:
                batch = totals
            else:
                batch.add(totals)
            if number == num_passes - 1:
                found.put(slice(begin, begin := begin + len(logits)), batch)
            bar.update(done)
    begin = 0
    for logits, _ in logits_of(opened.model, opened.loader(), opened.arithmetic):
        plain, rows = logits.softmax(1).cpu(), slice(begin, begin := begin + len(logits))
        found.without_dropout[rows] = plain.argmax(1)
        found.scores[SCORES[3]][rows] = torch.special.entr(plain.double()).sum(1)
    return found


def say_split(figures: dict[str, Any], num_images: int, num_classes: int) -> str:
    """Return the finding over a split in one sentence."""
    mean = figures["means"]["predictive_entropy"]
    if figures["num_mistakes"] in (0, num_images):
        which = "right" if figures["num_mistakes"] == 0 else "wrong"
        return (
            f"all {num_images:,} answers are {which}, so there is nothing to tell apart; "
            f"the mean predictive entropy is {mean[which]:.3f} of at most {math.log(num_classes):.2f} nats"
        )
    areas = figures["auroc"]
    return (
        f"predictive entropy finds the {_count(figures['num_mistakes'], 'mistake')} with AUROC {areas['predictive_entropy']:.3f} "
        f"(mutual information {areas['mutual_information']:.3f}, one look without dropout {_or_dash(areas[SCORES[3]])}); "
        f"it is {mean['wrong']:.2f} nats where wrong, {mean['right']:.2f} where right"
    )


def print_uncertainty(result: dict[str, Any]) -> None:
    """Print what the passes said, of one image or of a split."""
    print(result["says"] + "\n")
    if "votes" in result:
        mean = result["mean_probabilities"]
        rows = [{"class": name, "passes": votes, "mean probability": mean[name]} for name, votes in result["votes"].items() if votes]
        print_table(sorted(rows, key=lambda row: -row["passes"]), ("class", "passes", "mean probability"))
        print(
            f"\npredictive entropy {result['predictive_entropy']:.4f} nats, of which {result['mutual_information']:.4f} the passes disagree"
        )
    else:
        rows = [{"score": score.replace("_", " "), "AUROC": result["auroc"][score], **result["means"][score]} for score in SCORES]
        print_table(rows, ("score", "AUROC", "right", "wrong"))
        print(f"\nright, wrong: mean in nats. Accuracy {result['accuracy']:.4f}, without dropout {result['accuracy_without_dropout']:.4f}")
    for file in result["files"]:
        print(file)


def _seed(opened: Opened) -> int:
    config = opened.config
    return config.seed if config.order_seed is None else config.order_seed


def _by_class(names: tuple[str, ...], values: Tensor) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _count(num: int, what: str) -> str:
    return f"{num:,} {what}{'s' * (num != 1)}"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
