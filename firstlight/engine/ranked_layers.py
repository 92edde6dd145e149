"""Layers whose result depends on the whole batch, where several processes share it: batch normalisation and dropout.

Each gives its part of the batch what the layer of one process would, so that the losses of a training do not depend on the number of ranks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from firstlight.engine.distributed import Ranks


def share_layers(model: Any, ranks: Ranks) -> Any:
    """Put a shared layer in the place of each batch normalisation and dropout of a model; parameters, buffers and names stay."""
    if not isinstance(model, nn.Module):
        return model  # of raw tensors: it has neither
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, _BatchNorm):
                setattr(parent, name, RankedBatchNorm(layer, ranks))
            elif isinstance(layer, nn.Dropout):
                setattr(parent, name, RankedDropout(layer, ranks))
    return model


class RankedDropout(nn.Dropout):
    """Dropout that draws for the whole batch and takes its own part: on a CPU the draws of one process."""

    def __init__(self, layer: nn.Dropout, ranks: Ranks) -> None:
        super().__init__(layer.p)
        self.training = layer.training
        self._ranks = ranks

    def forward(self, input: Tensor) -> Tensor:
        """Return the values with some set to 0 and the others scaled up; same shape."""
        if not self.training or self.p == 0:
            return input
        kept = input.new_empty((self._ranks.num_images, *input.shape[1:])).bernoulli_(1 - self.p)
        return input * kept[self._ranks.shard.part(self._ranks.num_images)].div_(1 - self.p)


class RankedBatchNorm(_BatchNorm):
    """Batch normalisation of [B, C, ...] by mean and variance of the whole batch.

    One value a channel in the whole batch has no variance, and is treated by the running statistics, as models.layers.BatchNorm2d does.
    """

    def __init__(self, layer: _BatchNorm, ranks: Ranks) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        assert layer.momentum is not None and layer.track_running_stats
        self._parameters, self._buffers, self.training = layer._parameters, layer._buffers, layer.training
        self._ranks = ranks

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised values; same shape."""
        if not self.training:
            return super().forward(input)
        arguments = (input, self.weight, self.bias, self.running_mean, self.running_var, self)
        result, mean, variance, count = _Normalize.apply(*arguments)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
            share = (self.momentum or 0.0) * (count > 1)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
            self.num_batches_tracked += (count > 1).squeeze()
        return result  # type: ignore[no-any-return]


class _Normalize(torch.autograd.Function):
    """(values - mean) / sqrt(variance + eps) * weight + bias, with mean and variance over the values of all ranks."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor, running_mean: Tensor, running_var: Tensor, layer: Any) -> Any:
        dims = [0, *range(2, values.ndim)]
        ours = values.new_tensor([values.numel() // values.shape[1]], dtype=torch.float32)
        sums = values.sum(dims, dtype=torch.float32)
        centre = sums / ours.clamp(min=1)
        squares = (values.float() - _spread(centre, values)).square().sum(dims)
        counts, means, squares_of = layer._ranks.gather(torch.cat((ours, centre, squares))).split([1, len(sums), len(sums)], dim=1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (squares_of + counts * (means - mean).square()).sum(0) / count  # Chan, Golub and LeVeque 1983
        several = count > 1
        used_mean, used_variance = torch.where(several, mean, running_mean), torch.where(several, variance, running_var)
        result = F.batch_norm(values, used_mean, used_variance, weight, bias, training=False, eps=layer.eps)
        ctx.save_for_backward(values, weight, used_mean, (used_variance + layer.eps).rsqrt(), count)
        ctx.ranks = layer._ranks
        ctx.mark_non_differentiable(mean, variance, count)
        return result, mean, variance, count

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Any) -> Any:
        values, weight, mean, inverse, count = ctx.saved_tensors
        dims = [0, *range(2, values.ndim)]
        slope = slope.float()
        normal = (values.float() - _spread(mean, values)) * _spread(inverse, values)
        sums = torch.stack((slope.sum(dims), (slope * normal).sum(dims)))
        all_sums = ctx.ranks.gather(sums).sum(0) * (count > 1) / count
        inner = slope - _spread(all_sums[0], values) - normal * _spread(all_sums[1], values)
        by_values = inner * _spread(inverse if weight is None else inverse * weight, values)
        return (
            by_values.to(values.dtype),
            sums[1] if weight is not None else None,
            sums[0] if weight is not None else None,
            None,
            None,
            None,
        )


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """Return one value a channel ([C]) as it is spread over [B, C, ...]."""
    return values.view(1, -1, *(1 for _ in range(like.ndim - 2)))
