"""The test part of data that come without one."""

import torch
from torch import Tensor


def held_out(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Mark (bool [N]) the rounded `fraction` of each class, drawn by `seed`, that makes the test part of data without one."""
    generator = torch.Generator().manual_seed(seed)
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(rows), generator=generator)
        is_test[rows[order[: round(fraction * len(rows))]]] = True
    return is_test
