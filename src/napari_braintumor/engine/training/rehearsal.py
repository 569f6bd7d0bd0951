"""The rehearsal: one batch before the first step, so that whatever cannot work fails at once."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from napari_braintumor.engine.devices import describe_device
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.events import Noted, Verified
from napari_braintumor.engine.training.drawing import SliceDataset, stack_batch
from napari_braintumor.engine.training.fit import Fit
from napari_braintumor.engine.training.memory import count_activation_bytes
from napari_braintumor.engine.training.scoring import validate
from napari_braintumor.engine.training.training_cases import TrainingData


def rehearse(fit: Fit, dataset: SliceDataset, data: TrainingData) -> Iterator[Noted | Verified]:
    """Try one training and one validation batch, without learning from them, and report what will be needed.

    Yields
    ------
    Noted or Verified
        Each time memory ran out, and what the training will need.

    Raises
    ------
    SettingsError
        If not even one slice fits into memory, or the loss is not finite.
    RuntimeError, MemoryError
        If the network fails for another reason.
    """
    plan = fit.plan
    batch = stack_batch([dataset[number] for number in range(plan.batch_size)])
    while True:
        trial = copy.deepcopy(fit.network)
        fit.set_modes(trial, 0.0)
        try:
            activations = count_activation_bytes(trial, partial(fit.accumulate, trial, batch))
            started = time.monotonic()
            loss = float(fit.accumulate(trial, batch))
            seconds = time.monotonic() - started
            break
        except (RuntimeError, MemoryError) as error:
            if not fit.shrink_batch(error):
                if fit.state.pieces >= plan.batch_size:
                    raise SettingsError(
                        f"Memory ran out on {fit.device.type} even with a single slice. Choose a smaller patch, a "
                        "narrower network or another device."
                    ) from error
                raise
            yield Noted(fit.describe_pieces())
    if not math.isfinite(loss):
        raise SettingsError("The loss of the very first batch is not finite. Choose another loss, or check the images.")
    judged = data.validation or data.training
    started = time.monotonic()
    one = replace(judged[0], slices=judged[0].slices[: plan.batch_size])
    validate(fit.measured, [one], plan, fit.device)
    per_slice = (time.monotonic() - started) / len(one.slices)

    parameters = sum(parameter.numel() for parameter in fit.network.parameters())
    moments = {"adamw": 2, "adam": 2, "sgd": 1}[plan.optimizer]
    copies = 2 + moments + (1 if fit.averaged is not None else 0)
    measured = sum(len(part.slices) for part in (*data.validation, *data.replay_judged))
    minutes = (fit.steps * seconds + plan.epochs * measured * per_slice) / 60
    yield Verified(
        parameters=parameters,
        memory_mb=round((parameters * 4 * copies + activations) / 1e6, 1),
        data_mb=round(data.megabytes, 1),
        seconds_per_step=round(seconds, 4),
        minutes=round(min(minutes, plan.minutes or math.inf), 2),
        device=describe_device(fit.device),
    )
