"""Measures a frozen representation: neighbours, and regressions on vectors, layers or tokens.

All are deterministic functions of their inputs, so two encoders differ by their features alone.
Labels are one class per clip, int64 (N,), or any number of classes, boolean (N, C). Scores are
probabilities, to which no further softmax or sigmoid belongs. A class without a training clip
scores 0 everywhere: it counts as an error, never as a crash.
"""

from asit_core.probe.attentive import AttentiveProbeResult, attentive_probe
from asit_core.probe.clip_vectors import accuracy, log_mel_statistics
from asit_core.probe.config import ProbeConfig
from asit_core.probe.layers import LayerProbeResult, layer_probe
from asit_core.probe.linear import LinearProbeResult, linear_probe
from asit_core.probe.neighbours import knn
from asit_core.probe.validation import DEFAULT_L2, L2_PATH

__all__ = [
    "DEFAULT_L2",
    "L2_PATH",
    "AttentiveProbeResult",
    "LayerProbeResult",
    "LinearProbeResult",
    "ProbeConfig",
    "accuracy",
    "attentive_probe",
    "knn",
    "layer_probe",
    "linear_probe",
    "log_mel_statistics",
]
