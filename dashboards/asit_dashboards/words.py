"""How the dashboards say numbers: a metric's unit, its values, and the finding as a sentence.

Only words: what is compared and how sure it is comes from the study's `result.json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from asit_platform.words import ABSENT, plural

ROW_NAMES = {
    "untrained": "the same encoder untrained",
    "log_mel_statistics": "log-mel statistics (no network)",
}
STATE_WORDS = {
    "COMPLETE": "complete",
    "PRUNED": "stopped early",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
INTERVAL_NOTE = (
    "Intervals are 95 % Student-t intervals over training seeds, all measured on the same "
    "clips; they do not say how much another choice of clips would change the numbers."
)


def is_share(metric: str) -> bool:
    """True if the metric is a share of clips, best read in per cent."""
    return metric.rsplit("/", 1)[-1].endswith("accuracy")


def unit_of(metric: str) -> str:
    """What follows a metric's name on an axis; a loss or a gauge has no unit."""
    return " (% of clips)" if is_share(metric) else ""


def to_axis(value: float, metric: str) -> float:
    """A metric's value in the unit that `unit_of` names."""
    return 100 * value if is_share(metric) else value


def value_text(value: float | None, metric: str) -> str:
    """A metric's value as text, such as "71.3 %"."""
    if value is None or value != value:
        return ABSENT
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.4g}"


def interval_text(interval: Sequence[float] | None, metric: str) -> str:
    """An interval as text; a dash where one seed gives none."""
    if interval is None:
        return ABSENT
    low, high = (to_axis(bound, metric) for bound in interval)
    return f"{low:.1f} to {high:.1f} %" if is_share(metric) else f"{low:.4g} to {high:.4g}"


def shorten(text: str, length: int = 28) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def finding(result: Mapping[str, Any], goal: str) -> list[str]:
    """What the result says, one sentence a comparison, never more than its interval allows.

    Args:
        result: A study's result.
        goal: "maximize" or "minimize": which direction is better.
    """
    metric = result["metric"]["name"]
    pretrained = _row(result, "pretrained")
    if pretrained is None or not pretrained["values"]:
        return ["The selected configuration has not been measured on the test fold."]
    sentences = [
        f"Pre-trained with the selected configuration, the encoder reaches "
        f"{value_text(pretrained['mean'], metric)} on the test fold "
        f"({_interval_words(pretrained['ci95'], len(pretrained['values']), metric)})."
    ]
    sentences += [_comparison(each, metric, goal) for each in result.get("differences", [])]
    if result.get("transductive"):
        sentences.append(
            "Transductive: unlabelled test clips took part in pre-training, so this is not "
            "a number for unseen clips."
        )
    return sentences


def _row(result: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((row for row in result.get("rows", []) if row["name"] == name), None)


def _interval_words(interval: Sequence[float] | None, num_seeds: int, metric: str) -> str:
    if interval is None:
        return "one seed, so no interval" if num_seeds == 1 else "no interval"
    return f"95 % interval {interval_text(interval, metric)}, {plural(num_seeds, 'seed')}"


def _comparison(difference: Mapping[str, Any], metric: str, goal: str) -> str:
    other = ROW_NAMES.get(difference["against"], difference["against"])
    points = to_axis(difference["mean"], metric)
    unit = " points" if is_share(metric) else ""
    size = f"{abs(points):.1f}" if is_share(metric) else f"{abs(points):.4g}"
    start = f"Against {other}: {size}{unit} {'higher' if points >= 0 else 'lower'}"
    interval = difference["ci95"]
    if interval is None:
        return f"{start} with one seed, which cannot say whether that is more than chance."
    low, high = (to_axis(bound, metric) for bound in interval)
    bounds = f"{low:+.1f} to {high:+.1f}" if is_share(metric) else f"{low:+.4g} to {high:+.4g}"
    if low <= 0 <= high:
        verdict = "the interval includes zero, so these seeds do not show a difference"
    else:
        side = "above" if low > 0 else "below"
        better = (side == "above") == (goal == "maximize")
        whom = "in favour of" if better else "against"
        verdict = f"the whole interval lies {side} zero, {whom} pre-training"
    # Log-mel statistics draw nothing: there is one value to compare every seed with.
    over = "paired over" if difference["against"] == "untrained" else "over"
    seeds = plural(difference["n"], "seed")
    return f"{start} ({over} {seeds}, 95 % interval {bounds}{unit}): {verdict}."
