"""The limits of a machine, and what they allow a kernel."""

import pytest

from firstlight.engine.device import Arithmetic
from firstlight.profiling.kernels import Kernel
from firstlight.profiling.roofs import measure_roofs
from tests.profiling.conftest import ROOFS


def test_between_two_measured_copies_the_rate_is_interpolated() -> None:
    assert [ROOFS.bandwidth(size) for size in (1, 1000, 10**6, 10**9)] == [1e11, 1e11, 1e10, 1e10]
    assert ROOFS.bandwidth(31_623) == pytest.approx(10**10.5, rel=1e-4)


def test_a_kernel_has_two_roofs() -> None:
    """F6: the better of matrix product and convolution is the roof of compute."""
    assert ROOFS.least_seconds(Kernel("mm", 1.0, 10**9, 1000)) == pytest.approx((0.01, 1e-8))


def test_this_machine_has_limits() -> None:
    found = measure_roofs(Arithmetic("cpu"))
    assert found.flops > 1e8
    assert all(rate > 1e7 for _, rate in found.copy_bytes)
    assert [size for size, _ in found.copy_bytes] == sorted(size for size, _ in found.copy_bytes)
    assert 0 < found.call_seconds < 0.01
