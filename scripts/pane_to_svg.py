#!/usr/bin/env python3
"""Turns what `tmux capture-pane -e -p` prints into an SVG on standard output: text cells, colours, bold, reverse."""

import html
import re
import sys

CELL_WIDTH, CELL_HEIGHT, MARGIN = 8.43, 18, 10
BACKGROUND, FOREGROUND, DIM = "#1c1c1c", "#d0d0d0", "#8a8a8a"
NORMAL = ["#1c1c1c", "#d75f5f", "#87af5f", "#d7af5f", "#5f87d7", "#af87d7", "#5fafaf", "#d0d0d0"]
BRIGHT = ["#7a7a7a", "#ff8787", "#afd787", "#ffd787", "#87afff", "#d7afff", "#87d7d7", "#ffffff"]
SEQUENCE = re.compile(r"(\x1b\[[0-9;]*m)")


class Pen:
    """What SGR sequences (ECMA-48 8.3.117) have set."""

    def __init__(self):
        self.colour, self.bold, self.reverse = FOREGROUND, False, False

    def take(self, codes):
        for code in codes:
            if code == 0:
                self.__init__()
            elif code in (1, 22):
                self.bold = code == 1
            elif code in (7, 27):
                self.reverse = code == 7
            elif code == 2:
                self.colour = DIM
            elif code == 39:
                self.colour = FOREGROUND
            elif 30 <= code <= 37:
                self.colour = NORMAL[code - 30]
            elif 90 <= code <= 97:
                self.colour = BRIGHT[code - 90]


def cells(pen, text, column, row):
    x, y, width = MARGIN + column * CELL_WIDTH, MARGIN + row * CELL_HEIGHT, len(text) * CELL_WIDTH
    if pen.reverse:
        yield f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{CELL_HEIGHT}" fill="{pen.colour}"/>'
    if text.strip():
        fill = BACKGROUND if pen.reverse else pen.colour
        weight = ' font-weight="bold"' if pen.bold else ""
        yield (f'<text x="{x:.1f}" y="{y + 14}" fill="{fill}"{weight} textLength="{width:.1f}" '
               f'xml:space="preserve">{html.escape(text)}</text>')


def main():
    lines = sys.stdin.read().rstrip("\n").split("\n")
    columns = max(len(SEQUENCE.sub("", line)) for line in lines)
    width, height = round(columns * CELL_WIDTH) + 2 * MARGIN, len(lines) * CELL_HEIGHT + 2 * MARGIN
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-size="14" '
          f'font-family="DejaVu Sans Mono,Menlo,Consolas,monospace">'
          f'<rect width="100%" height="100%" rx="6" fill="{BACKGROUND}"/>')
    for row, line in enumerate(lines):
        pen, column = Pen(), 0
        for part in SEQUENCE.split(line):
            if SEQUENCE.fullmatch(part):
                pen.take(int(code or 0) for code in part[2:-1].split(";"))
            elif part:
                print("\n".join(cells(pen, part, column, row)))
                column += len(part)
    print("</svg>")


if __name__ == "__main__":
    main()
