"""Health of a representation without labels: does the teacher collapse, how many dimensions live?

The gauges are plain numbers in nats, shares or dimensions; `collapse_reason` reads them and names
what went wrong.
"""

from asit_core.gauges.collapse import collapse_reason
from asit_core.gauges.distributions import (
    center_norm,
    distillation_gauges,
    kl,
    marginal_entropy,
    prototype_use,
    student_entropy,
    teacher_entropy,
)
from asit_core.gauges.features import effective_rank, embedding_std

__all__ = [
    "center_norm",
    "collapse_reason",
    "distillation_gauges",
    "effective_rank",
    "embedding_std",
    "kl",
    "marginal_entropy",
    "prototype_use",
    "student_entropy",
    "teacher_entropy",
]
