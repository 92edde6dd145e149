"""What a start does not load: a training runs without the packages that only other uses need. Measured by benchmarks/startup.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN_AND_LOOK = """
import json, sys
import firstlight.engine.loop as loop
real, seen = loop.train_step, []
def look(*words, **more):
    result = real(*words, **more)
    seen or seen.extend(name for name in json.loads(sys.argv[1]) if name in sys.modules)
    return result
loop.train_step = look
from firstlight.__main__ import main
try:
    main(["train", "train.epochs=2", "train.test_at_end=false", sys.argv[2]])
except SystemExit:
    pass
print(json.dumps([seen, "torch._dynamo" in sys.modules]))
"""


@pytest.mark.parametrize("network", ["small_cnn", "mlp"])
def test_a_training_loads_neither_the_compiler_nor_what_draws(tmp_path: Path, network: str) -> None:
    """BENCH line 12: `train` reaches its first step within torch's own import + 0.7 s; torch._dynamo alone takes 2 s."""
    unwanted = ["torch._dynamo", "torch.utils.flop_counter", "sympy", "matplotlib", "rich.progress", "torchvision"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-c", TRAIN_AND_LOOK, json.dumps(unwanted), f"model={network}"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    at_first_step, compiler_in_the_end = json.loads(done.stdout.splitlines()[-1])
    assert at_first_step == []
    assert not compiler_in_the_end, "saving a checkpoint loaded torch._dynamo"
