"""The child of profiling/throughput.py: it is told an experiment and its images, and then what to measure, a line each.

`roofs` measures the machine, a number a batch of that size. Where memory runs out it says so and ends; where the system kills it the parent
sees its end.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from firstlight.engine.batch_probe import forget_steps, limit_memory
from firstlight.engine.children import OUT_OF_MEMORY, answer, answer_errors, read_asked
from firstlight.engine.device import Arithmetic
from firstlight.engine.memory import give_back_freed_memory, is_out_of_memory, keep_freed_memory, out_of_memory, peak_memory_mib
from firstlight.engine.seeding import private_randomness
from firstlight.engine.sources import config_from
from firstlight.engine.train import Prepared, prepare
from firstlight.errors import OutOfMemoryError
from firstlight.profiling.handover import unpack
from firstlight.profiling.kernels import Watcher
from firstlight.profiling.parts import measure_parts, training_on
from firstlight.profiling.peak import memory_in_use, reset_peak
from firstlight.profiling.roofs import measure_roofs

UNDISTURBED = 0.9
"""Share of its time that a training on the CPU is on a processor where no other process wants it."""


def main() -> None:
    """Prepare the experiment, and answer until stdin ends."""
    asked = read_asked()
    arithmetic = None if asked["arithmetic"] is None else Arithmetic(**asked["arithmetic"])
    with answer_errors(), out_of_memory("building the network", "try a smaller one, or fewer images"):
        data = unpack(asked["data"], sys.stdin.buffer)
        prepared = prepare(config_from(asked["config"]), Path(), arithmetic=arithmetic, data=data)
        del data
    answer({"arithmetic": asdict(prepared.setup.arithmetic), **prepared.facts})
    scratch = Path(asked["scratch"])
    for line in sys.stdin.buffer:
        word = line.decode().strip()
        try:
            if word == "roofs":
                answer(asdict(measure_roofs(prepared.setup.arithmetic)))
            else:
                answer(measure_point(prepared, int(word), asked["memory_mib"], scratch))
        except Exception as error:
            if isinstance(error, OutOfMemoryError) or is_out_of_memory(error):
                answer({"why": OUT_OF_MEMORY})
            else:
                answer({"why": f"{type(error).__name__}: {' '.join(str(error).split())}"})
            return


def measure_point(prepared: Prepared, batch_size: int, memory_mib: float | None, scratch: Path) -> dict[str, Any]:
    """Return what a step on a batch of so many images takes: its parts, its kernels, its memory.

    peak_mib: of the process; step_mib: beyond what it held before the first step of this size.
    """
    device = prepared.setup.arithmetic.device
    with prepared.setup.arithmetic.on_threads(), private_randomness(device):
        least = min(2, len(prepared.setup.train_loader.labels))
        with give_back_freed_memory():
            with training_on(prepared, least, scratch / "warm") as training:
                training.round(2)  # threads and libraries take their part before the limit is set
            del training
            forget_steps(prepared)
        limit_memory(device, memory_mib)
        begins_anew = reset_peak(device)
        before = memory_in_use(device) / 2**20
        with keep_freed_memory(ahead=0), training_on(prepared, batch_size, scratch / "run") as training:
            training.round(2)
            peak = peak_memory_mib()
            if memory_mib is not None:
                if begins_anew and peak - before > memory_mib:
                    raise MemoryError  # the system's limit knows nothing of holes that what was freed before left to be filled
                limit_memory(device, None)  # the step fits; to time its kernels one by one takes more, and is no part of it
            watcher = Watcher(training)
            timing = measure_parts(training, batch_size, watcher.turn)
            kernels = watcher.result(timing.whole_seconds)
    return {
        "batch_size": batch_size,
        "num_steps": timing.num_steps,
        "whole_seconds": timing.whole_seconds,
        "seconds": timing.seconds,
        "parts": timing.parts,
        "sum_over_whole": timing.sum_over_whole,
        "busy": device == "cpu" and timing.processor_share < UNDISTURBED,
        "kernels": [asdict(kernel) for kernel in kernels.kernels],
        "num_calls": kernels.num_calls,
        "call_seconds": kernels.call_seconds,
        "peak_mib": peak,
        "step_mib": max(peak - before, 0.0),
    }


if __name__ == "__main__":
    main()
