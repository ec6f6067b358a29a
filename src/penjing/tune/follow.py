"""Follow: a process of torchrun's beside the first one, which trains what that one asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from penjing.contract import Json
from penjing.errors import ONE_CANDIDATES, PenjingError, is_one_candidates
from penjing.tasks.task import Task
from penjing.tune import exchange
from penjing.tune.orders import Order, received
from penjing.tune.train import device_of, step_seconds, train


def follow(find: Callable[[], Task]) -> Json:
    """Take part in all trainings, until the first process has finished.

    What goes wrong here is told to the first process, which decides what follows.

    Args:
        find: reads the task; it must be the same as in the first process.

    Returns:
        What the first process gave to `penjing.tune.orders.end`.

    Raises:
        LostProcessError: another process has ended before that.
    """
    task: Task | PenjingError
    try:
        task = find()
    except PenjingError as error:
        task = error
    while isinstance(order := received(), Order):
        try:
            _obey(order, task)
        except ONE_CANDIDATES as error:
            if not is_one_candidates(error):
                raise
            # else the first process knows
    return order


def _obey(order: Order, task: Task | PenjingError) -> None:
    with exchange.ending_together():
        if isinstance(task, PenjingError):
            raise task
        device_of(order.options)
        network = order.network(task)
        task = task if order.validates else replace(task, validation=None)
    if order.what == "train":
        train(network, task, order.options, seconds=order.seconds)
    else:
        step_seconds(network, task, order.options)
