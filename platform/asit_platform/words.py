"""How the terminal and the pages alike say durations, values and the names of parameters."""

from collections.abc import Sequence

ABSENT = "\N{EN DASH}"


def duration_text(seconds: float | None) -> str:
    """A duration in its two largest units: `3.2 s`, `42 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds is None:
        return ABSENT
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def parameter_text(value: object) -> str:
    """A parameter's value, short enough for a table cell."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def short_names(paths: Sequence[str], *, at_least: int = 2) -> dict[str, str]:
    """Dotted paths without the leading words that the reader does not need to tell them apart.

    Args:
        paths: All of them.
        at_least: Words that stay: `masking.ratio` says more than `ratio`, where there is room.
    """
    names = {}
    for path in paths:
        words = path.split(".")
        others = [other.split(".") for other in paths if other != path]
        kept = min(at_least, len(words))
        while kept < len(words) and any(other[-kept:] == words[-kept:] for other in others):
            kept += 1
        names[path] = ".".join(words[-kept:])
    return names


def plural(count: int, noun: str) -> str:
    """`3 trials`, `1 trial`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
