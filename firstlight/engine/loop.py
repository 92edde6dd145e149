"""The training loop: fit -> train_one_epoch -> train_step -> the model. Reading order: fit, train_one_epoch, finish_epoch, close_epoch."""

import math

from firstlight.data.loader import Batch
from firstlight.engine.evaluate import EvaluationStopped, evaluate_model
from firstlight.engine.graph import StepGraph
from firstlight.engine.record import Recorder
from firstlight.engine.seeding import private_randomness, seed_batch
from firstlight.engine.signals import StopRequest, stop_requests
from firstlight.engine.state import Best, Setup, TrainState
from firstlight.engine.step import train_step
from firstlight.errors import DivergedError, InterruptedRunError
from firstlight.files import Writing, carry_out
from firstlight.metrics.evaluation import Evaluation


def fit(state: TrainState, setup: Setup, recorder: Recorder) -> TrainState:
    """Train until the last epoch, a pause, or the end of patience; return the state.

    Raises InterruptedRunError after a checkpoint when Ctrl-C or SIGTERM came, DivergedError for a number that is not finite, and
    StorageError where the disk refused too many checkpoints.
    """
    graph = StepGraph(state, setup) if setup.graph else None
    with private_randomness(setup.arithmetic.device), stop_requests() as asked, recorder.progress(state, setup):
        stop = asked if setup.ranks is None else setup.ranks.agreeing_on(asked)
        try:
            if not recorder.has_checkpoint and setup.train.on_divergence == "rollback":
                recorder.save(state, setup)  # somewhere to go back to
            while state.epoch < setup.last_epoch and not out_of_patience(state, setup):
                try:
                    train_one_epoch(state, setup, recorder, stop, graph)
                    row = finish_epoch(state, setup, recorder, stop)
                    if setup.pause_when is not None and setup.pause_when(state.epoch, row):
                        break
                except DivergedError as error:
                    recorder.roll_back(state, setup, error)
                    if graph is not None:
                        graph.forget()
        except KeyboardInterrupt:
            raise InterruptedRunError(recorder.how_to_resume("left at once, nothing saved"), exit_code=asked.exit_code) from None
    return state


def train_one_epoch(state: TrainState, setup: Setup, recorder: Recorder, stop: StopRequest, graph: StepGraph | None = None) -> None:
    """Go once over the training data, from the batch where the state stands; `graph` replays steps that it has captured."""
    state.model.train()
    num_batches, accumulate = setup.train_loader.num_batches, setup.train.accumulate
    loader = setup.train_loader
    made = loader.batches(state.epoch, start=state.batch, reuse_buffers=True)
    for batch in made if graph is None else loader.draws(state.epoch, start=state.batch):
        seed_batch(setup.order_seed, state.epoch, state.batch, device=setup.arithmetic.device)
        num_images = len(batch.indices)
        share = setup.share(state.batch, num_images)
        if setup.ranks is not None:
            num_images = setup.ranks.num_images = setup.num_images(state.batch)
        state.batch += 1
        steps_now = state.batch % accumulate == 0 or state.batch == num_batches
        lr = setup.lr(state) if steps_now else None
        if isinstance(batch, Batch):
            result = train_step(state, batch, setup, share=share, lr=lr)
        else:
            assert graph is not None and lr is not None  # check_graph refuses accumulation
            result = graph.step(batch, lr)
        recorder.note_batch(result, num_images)
        if lr is None:
            continue
        recorder.close_step(state, lr, result.grad_norms)
        if due(setup.train.log_every, state.step):
            recorder.fetch(state, setup)
        if setup.checkpoint.every_steps is not None and due(setup.checkpoint.every_steps, state.step):
            recorder.fetch(state, setup)  # a loss that is not finite must not become a checkpoint
            recorder.save(state, setup)
        if stop.asked:
            recorder.fetch(state, setup)
            recorder.save_and_stop(state, setup, stop.exit_code)


def finish_epoch(state: TrainState, setup: Setup, recorder: Recorder, stop: StopRequest) -> dict[str, float]:
    """Validate, close the epoch and return its figures; stop where that was asked for."""
    recorder.fetch(state, setup)
    val = None
    if setup.val_loader is not None:
        try:
            val = evaluate_model(
                state.evaluated_model,
                setup.val_loader,
                setup.num_classes,
                setup.arithmetic,
                setup.evaluation,
                asked_to_stop=lambda: stop.asked,
                ranks=setup.ranks,
            )
        except EvaluationStopped:
            recorder.save_and_stop(state, setup, stop.exit_code)
    row = carry_out(close_epoch(state, setup, recorder, val))
    if stop.asked:
        recorder.save_and_stop(state, setup, stop.exit_code)
    return row


def close_epoch(state: TrainState, setup: Setup, recorder: Recorder, val: Evaluation | None) -> Writing[dict[str, float]]:
    """Decide whether the epoch that ends is the best, let the schedule see it, record it and save; return its figures."""
    train_loss, train_accuracy = (total / setup.train_loader.num_images for total in state.running)
    row = {"train_loss": train_loss, "train_accuracy": train_accuracy}
    if val is not None:
        if not math.isfinite(val.loss):
            raise recorder.diverged(state, setup, f"the validation loss became {val.loss}")
        row |= {"val_loss": val.loss, "val_accuracy": val.accuracy, "val_top_k": val.top_k_accuracy}
    state.epoch, state.batch, state.running = state.epoch + 1, 0, (0.0, 0.0)
    best, stale_epochs = state.best, state.stale_epochs
    is_best = judge(state, setup, row)
    state.schedule_state = setup.schedule.update(state.schedule_state, row.get("val_loss", train_loss))
    recorder.close_epoch(state, setup, row, is_best=is_best)
    keep = setup.checkpoint.keep_every is not None and due(setup.checkpoint.keep_every, state.epoch)
    is_last = state.epoch == setup.last_epoch or out_of_patience(state, setup)
    if is_best or keep or is_last or due(setup.checkpoint.every, state.epoch):
        saved = yield from recorder.saving(state, setup, keep=keep, must=is_last)
        if is_best and not saved:  # weights that the disk did not take are nobody's best
            state.best, state.stale_epochs = best, stale_epochs + 1
    return row


def judge(state: TrainState, setup: Setup, row: dict[str, float]) -> bool:
    """Tell whether the epoch in `row` is the best so far, and note it in the state; without validation the last one is."""
    value = row.get(setup.train.monitor, float(state.epoch))
    higher_is_better = setup.train.monitor == "val_accuracy" or setup.train.monitor not in row
    is_best = state.best is None or (value > state.best.value if higher_is_better else value < state.best.value)
    if is_best:
        state.best = Best(state.epoch, state.step, value, row)
    state.stale_epochs = 0 if is_best else state.stale_epochs + 1
    return is_best


def out_of_patience(state: TrainState, setup: Setup) -> bool:
    """Tell whether so many epochs brought nothing better that training ends early (Prechelt 1998)."""
    return setup.train.patience is not None and state.stale_epochs >= setup.train.patience


def is_paused(state: TrainState, setup: Setup) -> bool:
    """Tell whether a training ended at its pause, before its last epoch."""
    return state.epoch < setup.train.epochs and not out_of_patience(state, setup)


def due(every: int, count: int) -> bool:
    """Tell whether something periodic is to happen at this count."""
    return count % every == 0
