"""Tables as LaTeX with booktabs rules."""

from __future__ import annotations

from vl2v.benchmark.render.layout import ACCURACY, BEST, NEAR, OTHER, Cell, Layout, lay_out
from vl2v.benchmark.tables import Table

EMPHASIS = {BEST: r"\textbf{%s}", NEAR: r"\underline{%s}", "": "%s"}
# Characters that are commands in LaTeX, or that its older engines lack.
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "–": "--",
    "²": "$^2$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
}


def to_latex(table: Table) -> str:
    """Return a floating ``table*`` of two tabulars: accuracies, and other columns."""
    layout = lay_out(table, "bold", "underlined")
    label = "".join(c for c in table.benchmark.lower() if c.isalnum() and c.isascii())
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape(' '.join([layout.title + '.', *layout.captions]))}}}",
        rf"\label{{tab:{label or 'benchmark'}}}",
        r"\vskip 1ex",
        *_tabular(layout.part(ACCURACY)),
        r"\\[1ex]",
        *_tabular(layout.part(OTHER)),
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Escape text for LaTeX."""
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def _tabular(layout: Layout) -> list[str]:
    head = " & ".join(["method", *(escape(column.name) for column in layout.columns)])
    lines = [rf"\begin{{tabular}}{{l{'r' * len(layout.columns)}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    for line in layout.lines:
        lines.append(" & ".join([escape(line.name), *map(_marked, line.cells)]) + r" \\")
        lines += [r"\midrule"] if line.closes else []
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _marked(cell: Cell) -> str:
    # Outside of math mode, LaTeX sets a hyphen instead of a minus sign.
    value = f"${cell.value}$" if cell.value[0] in "+-" else escape(cell.value)
    error = rf" {{\scriptsize $\pm$ {cell.error}}}" if cell.error else ""
    note = rf" {{\scriptsize ({escape(cell.note)})}}" if cell.note else ""
    return EMPHASIS[cell.emphasis] % value + error + note
