"""The Ray Data settings that all of ours share; the process's own context is left alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ray.data import DataContext

_NO_PROGRESS_TIMEOUT_S = 300.0


@contextmanager
def ray_data_context() -> Iterator[None]:
    """Datasets made inside are quiet, keep their order, and fail rather than wait for ever."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False  # the terminal belongs to the driver's own bar
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    # with every CPU taken, Ray Data would wait silently: an execution that moves nothing must end
    context.execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT_S
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # its one warning is that the bars are off
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    with DataContext.current(context):
        yield
