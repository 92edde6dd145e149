"""torch's optimizers without torch.compile's machinery, which they load although nothing here is compiled.

torch.optim hides the methods below from torch.compile by wrappers that import torch._dynamo at the first call (torch 2.9 to 2.15):
900 modules, 2.4 s and 110 MiB, as much as torch itself. The plain methods lie under the wrappers.
"""

import inspect

import torch


class Optimizer(torch.optim.Optimizer):
    """torch.optim.Optimizer for eager mode; a class that inherits from it brings a plain `step` of its own."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)


class SGD(Optimizer, torch.optim.SGD):
    """torch.optim.SGD for eager mode."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class RMSprop(Optimizer, torch.optim.RMSprop):
    """torch.optim.RMSprop for eager mode."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.RMSprop.step))


class Adam(Optimizer, torch.optim.Adam):
    """torch.optim.Adam for eager mode."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
