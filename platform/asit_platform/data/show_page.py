"""The overview of a dataset as one small HTML file that opens with the network off.

Nothing here reads the clock or the machine: shown again, a dataset gives the same bytes.
"""

import base64
import html
from collections.abc import Iterable, Sequence

from asit_platform.data.show import Durations, Example, Overview
from asit_platform.words import duration_text, plural

_MANY = 30  # classes shown before the rest is folded away
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --grey: #667; --rule: #ddd;
  --bar: #2f6f9f; --warn: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6ea; --paper: #15171a; --grey: #9aa0aa;
  --rule: #34383f; --bar: #6aaede; --warn: #4a3a12; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Helvetica Neue", "Liberation Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 8px; padding-top: 14px; border-top: 1px solid var(--rule); }
p { margin: 4px 0; overflow-wrap: anywhere; }
.grey, figcaption span, summary { color: var(--grey); }
.warning { background: var(--warn); border-left: 4px solid #c77c02; padding: 6px 12px; }
.bars { display: grid; grid-template-columns: minmax(90px, max-content) max-content 1fr;
  gap: 2px 10px; font-size: 13px; font-variant-numeric: tabular-nums; align-items: center; }
.bars b { font-weight: 400; overflow-wrap: anywhere; }
.bars i { font-style: normal; text-align: right; }
.bars s { display: block; height: 11px; background: var(--bar); border-radius: 0 3px 3px 0; }
details { margin-top: 8px; }
svg { width: 100%; height: 120px; display: block; fill: var(--bar); }
.ends { display: flex; justify-content: space-between; font-size: 13px; color: var(--grey); }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 24px; }
figure { margin: 0; min-width: 0; }
figure img { width: 100%; height: 128px; display: block; border-radius: 3px; background: #000004; }
figcaption { font-size: 13px; margin: 4px 0; overflow-wrap: anywhere; }
audio { width: 100%; height: 32px; }
"""


def render(overview: Overview, summary: Sequence[str]) -> str:
    """The page.

    Args:
        overview: What to show.
        summary: Lines of the summary on the terminal; the first names the dataset.
    """
    title, *facts = (html.escape(line) for line in summary)
    name, _, counts = title.partition(": ")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{name}</h1>\n<p>{counts}</p>\n{''.join(_fact(fact) for fact in facts)}"
        f"{_folds(overview)}{_classes(overview)}{_durations(overview.durations)}"
        f"{_examples(overview.examples)}</main>\n</body>\n</html>\n"
    )


def _fact(line: str) -> str:
    kind = "warning" if line.startswith("warning: ") else "grey"
    return f'<p class="{kind}">{line}</p>\n'


def _folds(overview: Overview) -> str:
    rows = [
        (f"{fold.name} ({duration_text(fold.duration_s)})", fold.num_clips)
        for fold in overview.folds
    ]
    return f"<h2>Clips in {plural(len(rows), 'fold')}</h2>\n{_bars(rows)}"


def _classes(overview: Overview) -> str:
    counts = overview.class_counts
    if not counts:
        return "<h2>Classes</h2>\n<p>The clips have no labels.</p>\n"
    rest = counts[_MANY:]
    most = counts[0][1]
    folded = (
        f"<details><summary>the {len(rest)} rarer ones</summary>"
        f"{_bars(rest, most=most)}</details>\n"
        if rest
        else ""
    )
    return (
        f"<h2>Clips of each of {len(counts)} classes</h2>\n{_bars(counts[:_MANY], most=most)}"
        f"{folded}"
    )


def _bars(rows: Iterable[tuple[str, int]], *, most: int | None = None) -> str:
    rows = list(rows)
    most = max(most or max(count for _, count in rows), 1)
    cells = (
        f"<b>{html.escape(name)}</b><i>{count:,}</i>"
        f'<s style="width:{100 * count / most:.2f}%"></s>\n'
        for name, count in rows
    )
    return f'<div class="bars">\n{"".join(cells)}</div>\n'


def _durations(durations: Durations) -> str:
    if durations.longest_s - durations.shortest_s < 0.01:
        return f"<h2>Durations</h2>\n<p>Every clip lasts {durations.median_s:.2f} s.</p>\n"
    most = max(durations.counts)
    step = 100 / len(durations.counts)
    bars = "".join(
        f'<rect x="{step * number:.3f}" y="{100 - height:.2f}" width="{step * 0.9:.3f}" '
        f'height="{height:.2f}"><title>{plural(count, "clip")}</title></rect>'
        for number, count in enumerate(durations.counts)
        for height in (100 * count / most,)
    )
    return (
        f"<h2>Durations</h2>\n<p>Half of the clips last at most {durations.median_s:.2f} s; up to "
        f"{most:,} clips a bar.</p>\n"
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="Durations">{bars}</svg>\n<div class="ends">'
        f"<span>{durations.shortest_s:.2f} s</span><span>{durations.longest_s:.2f} s</span></div>\n"
    )


def _examples(examples: Sequence[Example]) -> str:
    shown = "".join(_example(example) for example in examples)
    return (
        f'<h2>{plural(len(examples), "clip")} to look at</h2>\n<p class="grey">Time runs to the '
        "right, low frequencies are at the bottom; one scale of brightness for all.</p>\n"
        f'<div class="clips">\n{shown}</div>\n'
    )


def _example(example: Example) -> str:
    labels = html.escape(", ".join(example.labels) or "no label")
    clip_id = html.escape(example.clip_id)
    sound = (
        '<span class="grey">its sound file is no longer where it was</span>'
        if example.sound is None
        else f'<audio controls src="{_data("audio/mpeg", example.sound)}"></audio>'
    )
    return (
        f'<figure>\n<img src="{_data("image/png", example.picture)}" '
        f'alt="Spectrogram of {clip_id}">\n<figcaption>{labels}<br><span>{clip_id}, '
        f"{html.escape(example.fold)}, {example.duration_s:.2f} s</span></figcaption>\n{sound}\n"
        "</figure>\n"
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
