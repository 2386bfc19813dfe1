"""The self-contained HTML page of a report.

Everything that comes from files (captions, names, titles) is escaped; images go into the page as small JPEG data URIs.
Examples are taken at even distances through a split, never chosen by their score.
"""

import base64
import html

from unival.commands.report.content import (
    HEADINGS,
    MAIN,
    SWAPPED,
    UNSEEN,
    Example,
    Report,
    display_name,
    evenly,
    key_figures,
    thumbnail,
)
from unival.commands.report.picture import curve_png

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2328; background: #f6f8fa; margin: 0; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 19px; margin: 36px 0 4px; }
p { margin: 4px 0 12px; color: #59636e; max-width: 78ch; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.tile { background: #fff; border: 1px solid #d1d9e0; border-radius: 8px; padding: 12px 18px; min-width: 150px; }
.tile b { display: block; font-size: 28px; line-height: 1.2; } .tile span { color: #59636e; font-size: 13px; }
.panel { background: #fff; border: 1px solid #d1d9e0; border-radius: 8px; padding: 14px; overflow-x: auto; }
.panel img { max-width: 100%; display: block; }
table { border-collapse: collapse; } th, td { padding: 5px 14px 5px 0; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 1px solid #d1d9e0; }
td { font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(212px, 1fr)); gap: 14px; }
.card { background: #fff; border: 1px solid #d1d9e0; border-top: 4px solid #9aa4af; border-radius: 8px; padding: 10px; }
.card.right { border-top-color: #1a7f37; } .card.wrong { border-top-color: #c0392b; }
.card img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #eef1f4; border-radius: 4px; }
.said { font-weight: 600; margin: 8px 0 4px; } .right .said { color: #1a7f37; } .wrong .said { color: #c0392b; }
.card ul { margin: 0; padding-left: 18px; color: #59636e; font-size: 13px; }
.foot { display: flex; justify-content: space-between; color: #59636e; font-size: 12px; margin-top: 6px; }
.failure { color: #c0392b; font-weight: 600; }
footer { color: #59636e; font-size: 13px; margin-top: 36px; }
"""


EXPLAINED = {
    MAIN: "Scenes that training never showed. A caption is right (green) when it equals a reference word for word.",
    SWAPPED: "The same model and the same references, but every row is shown the picture of another row. A model that "
    "looks describes that other picture and scores low here; one that recites likely sentences scores the same.",
    UNSEEN: "Objects that training never showed, whose names (or combinations of a colour and a shape) a model trained from "
    "scratch has never read: low scores are expected. These rows are not part of the figures of the main split.",
}



def html_page(report: Report, count: int) -> str:
    """The whole page as text, with `count` examples of the main split and half as many of the others."""
    captions = sum(len(split.examples) for split in report.splits)
    parts = [
        f"<h1>{html.escape(report.heading)}</h1>",
        *([f'<p class="failure">{html.escape(report.failure)}</p>'] if report.failure else []),
        f"<p>{len(report.splits)} splits, {captions} generated captions.</p>",
        '<div class="tiles">' + "".join(tile(value, label) for value, label in key_figures(report)) + "</div>",
    ]
    if report.curves.loss:
        picture = data_uri(curve_png(report.curves), "image/png")
        parts.append(f'<h2>Training</h2><div class="panel"><img alt="Loss by update" src="{picture}"></div>')
    parts += ["<h2>Scores</h2>", f'<div class="panel">{score_table(report)}</div>']
    for split in report.splits:
        shown = evenly(split.examples, count if split.role == MAIN else max(count // 2, 1))
        heading = HEADINGS.get(split.role, f"Split {split.name}")
        parts.append(f"<h2>{html.escape(heading)}</h2>")
        parts.append(
            f"<p>{html.escape(EXPLAINED.get(split.role, ''))} Shown: {len(shown)} of {len(split.examples)}.</p>"
        )
        parts.append(
            '<div class="grid">' + "".join(card(example, split.role, report.metric) for example in shown) + "</div>"
        )
    parts.append("<footer>Examples stand at even distances through each split; none was chosen by its score.</footer>")
    head = f'<meta charset="utf-8"><title>{html.escape(report.heading)}</title><style>{STYLE}</style>'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body><main>\n{body}\n</main></body></html>\n'


def tile(value: str, label: str) -> str:
    return f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'


def score_table(report: Report) -> str:
    """One row per split, one column per metric."""
    metrics = list(dict.fromkeys(key for split in report.splits for key in split.summary))
    head = "".join(f"<th>{html.escape(display_name(metric))}</th>" for metric in metrics)
    rows = []
    for split in report.splits:
        cells = "".join(
            f"<td>{split.summary[metric]:.3f}</td>" if metric in split.summary else "<td></td>" for metric in metrics
        )
        label = HEADINGS.get(split.role, split.name)
        rows.append(
            f"<tr><td>{html.escape(label)} ({html.escape(split.name)})</td><td>{len(split.examples)}</td>{cells}</tr>"
        )
    return f"<table><thead><tr><th>split</th><th>rows</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def card(example: Example, role: str, metric: str) -> str:
    """One example of the page; with swapped pixels neither right nor wrong is shown, since both would mislead."""
    verdict = "" if role == SWAPPED else " right" if example.is_exact else " wrong"
    mark = {"": "", " right": "✓ ", " wrong": "✗ "}[verdict]
    references = "".join(f"<li>{html.escape(reference)}</li>" for reference in example.references[:5])
    source = data_uri(thumbnail(example), "image/jpeg")
    score = f"{display_name(metric)} {example.scores[metric]:.2f}" if metric in example.scores else ""
    return (
        f'<div class="card{verdict}"><img alt="" src="{source}">'
        f'<div class="said">{mark}{html.escape(example.hypothesis) or "(nothing)"}</div><ul>{references}</ul>'
        f'<div class="foot"><span>row {example.row}</span><span>{html.escape(score)}</span></div></div>'
    )


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
