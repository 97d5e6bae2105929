"""The Ray Data settings that all of ours share; the process's own context is left alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext
from ray.data.exceptions import ExecutionTimeoutError

from asit_platform.errors import PlatformError

NO_PROGRESS_TIMEOUT_S = 600.0


@contextmanager
def ray_data_context(*, runs_through: bool) -> Iterator[None]:
    """Datasets made inside are quiet and keep their order.

    Args:
        runs_through: The execution is not held up by its consumer. Then one that moves nothing
            for long has found no free CPU, and must end rather than wait for ever; Ray Data
            cannot tell that from a consumer that takes its time.
    """
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False  # the terminal belongs to the driver's own bar
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S if runs_through else -1
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # its one warning is that the bars are off
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    with DataContext.current(context):
        yield


@contextmanager
def explain_no_progress() -> Iterator[None]:
    """Turn the timeout of an execution inside into a PlatformError."""
    try:
        yield
    except ExecutionTimeoutError as error:
        raise PlatformError(
            f"Ray Data must make progress within {NO_PROGRESS_TIMEOUT_S:g} s, but no task ended: "
            "no CPU is free or the storage does not answer; wait for what runs on the cluster"
        ) from error
