"""How sure a network is, from several answers to the same images; and how well a score tells mistakes from right answers."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import entr


@dataclass
class PassTotals:
    """Running sums over the passes of a network with random parts (Gal and Ghahramani 2016); all on the CPU, in nats.

    probabilities: float64 [B, K], summed; entropies: float64 [B], summed; votes: int64 [B, K], passes in which a class was the likeliest.
    """

    probabilities: Tensor
    entropies: Tensor
    votes: Tensor
    num_passes: int

    @classmethod
    def of(cls, logits: Tensor) -> "PassTotals":
        """Return the sums of one pass; logits: [B, K]."""
        log_probabilities = logits.cpu().double().log_softmax(1)
        probabilities = log_probabilities.exp()
        votes = torch.zeros(logits.shape, dtype=torch.int64)
        votes.scatter_(1, log_probabilities.argmax(1, keepdim=True), 1)
        return cls(probabilities, entr(probabilities).sum(1), votes, 1)

    def add(self, other: "PassTotals") -> None:
        """Add the sums of other passes over the same images."""
        self.probabilities += other.probabilities
        self.entropies += other.entropies
        self.votes += other.votes
        self.num_passes += other.num_passes

    @staticmethod
    def joined(parts: "list[PassTotals]") -> "PassTotals":
        """Return the sums of several batches, one below the other."""
        probabilities, entropies, votes = zip(*((part.probabilities, part.entropies, part.votes) for part in parts), strict=True)
        return PassTotals(torch.cat(probabilities), torch.cat(entropies), torch.cat(votes), parts[0].num_passes)

    @property
    def mean(self) -> Tensor:
        """The mean probabilities, float64 [B, K]."""
        return self.probabilities / self.num_passes

    @property
    def predictive_entropy(self) -> Tensor:
        """The entropy of the mean probabilities, float64 [B]: all that the network does not know."""
        entropy: Tensor = entr(self.mean).sum(1)
        return entropy

    @property
    def expected_entropy(self) -> Tensor:
        """The mean entropy of a pass, float64 [B]: what each answer by itself leaves open, as where the image is ambiguous."""
        return self.entropies / self.num_passes

    @property
    def mutual_information(self) -> Tensor:
        """How far the passes disagree, float64 [B]: predictive less expected entropy, never negative (BALD; Houlsby et al. 2011)."""
        return (self.predictive_entropy - self.expected_entropy).clamp(min=0)


def area_under_roc(scores: Tensor, positive: Tensor) -> float | None:
    """Return the share of pairs in which the positive has the larger score, ties counting half (Mann and Whitney 1947).

    scores: float [N]; positive: bool [N]. None where there are no positives, or nothing else.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        return None
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks = (ends - (counts - 1) / 2)[place]  # of tied scores, the mean of their ranks
    return float((ranks[positive].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))
