"""A rank of test_distributed.py: trains what a JSON file lists, one after the other, as every other rank does.

`ranks_worker.py JOBS RUNS_DIR`: a job is [name, [config, override, ...]].
"""

import json
import os
import sys
from pathlib import Path

import firstlight as fl
from firstlight.tracking.console import Console

for name, words in json.loads(Path(sys.argv[1]).read_text()):
    fl.train(*words, name=name, runs_dir=sys.argv[2], console=Console(quiet=True))
print(f"rank {os.environ['RANK']} is done")
