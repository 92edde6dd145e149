"""A small training to be profiled, and limits of a machine that never was."""

from pathlib import Path

import pytest

from firstlight.profiling.roofs import Roofs

TINY = """
data: digits
model: {name: mlp, hidden: [16]}
optim: {name: sgd, lr: 0.1, momentum: 0.9}
split: {num_train: 200}
train: {epochs: 2, batch_size: 20}
device: {name: cpu, precision: float32, memory_format: contiguous, threads: 1}
"""
ROOFS = Roofs(gemm_flops=1e11, conv_flops=5e10, copy_bytes=((1000, 1e11), (1_000_000, 1e10)), call_seconds=1e-6)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path
