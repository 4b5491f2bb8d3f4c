"""The eight animals, as simple shapes: each stands on `y`, centred on `x`, `s` tall (in units of the
canvas).
"""

from __future__ import annotations

from collections.abc import Callable

from llmi.demo.drawn.canvas import Canvas, Colour

WHITE, BLACK = (250, 248, 242), (34, 32, 36)


class Pen:
    """Shapes in the animal's own units: x to the right of its middle, y up from its feet, both in its
    height.
    """

    def __init__(self, canvas: Canvas, x: float, y: float, s: float):
        self._c, self._x, self._y, self._s = canvas, x, y, s

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        self._c.oval(self._x + x * self._s, self._y - y * self._s, rx * self._s, ry * self._s, colour)

    def poly(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self._c.poly([(self._x + x * self._s, self._y - y * self._s) for x, y in points], colour)

    def line(self, points: list[tuple[float, float]], colour: Colour, width: float) -> None:
        self._c.line(
            [(self._x + x * self._s, self._y - y * self._s) for x, y in points], colour, width * self._s
        )

    def eyes(self, x: float, y: float, apart: float, r: float = 0.035, iris: Colour = BLACK) -> None:
        for side in (-1, 1):
            self.oval(x + side * apart, y, r, r, iris)
            if iris != BLACK:
                self.oval(x + side * apart, y, r * 0.5, r * 0.6, BLACK)


def _walker(p: Pen, coat: Colour, belly: Colour, legs: Colour) -> None:
    """A four-legged body that faces right, without head and tail."""
    for x in (-0.42, -0.26, 0.18, 0.32):
        p.poly([(x - 0.055, 0.36), (x + 0.055, 0.36), (x + 0.04, 0.0), (x - 0.04, 0.0)], legs)
    p.oval(-0.05, 0.44, 0.48, 0.2, coat)
    p.oval(-0.05, 0.36, 0.36, 0.1, belly)


def _ears(p: Pen, x: float, y: float, apart: float, size: float, colour: Colour, inner: Colour) -> None:
    for side in (-1, 1):
        e = x + side * apart
        p.poly([(e - size * 0.7, y), (e + side * size * 0.4, y + size * 1.6), (e + size * 0.7, y)], colour)
        p.poly([(e - size * 0.35, y), (e + side * size * 0.3, y + size), (e + size * 0.35, y)], inner)


def fox(p: Pen) -> None:
    orange = (226, 112, 40)
    p.poly([(-0.46, 0.5), (-0.8, 0.72), (-0.98, 0.5), (-0.84, 0.3), (-0.5, 0.36)], orange)
    p.poly([(-0.86, 0.68), (-0.98, 0.5), (-0.88, 0.34), (-0.8, 0.52)], WHITE)
    _walker(p, orange, (244, 206, 170), (74, 44, 34))
    _ears(p, 0.46, 0.82, 0.13, 0.11, orange, (74, 44, 34))
    p.poly([(0.24, 0.86), (0.68, 0.86), (0.7, 0.66), (0.46, 0.44), (0.22, 0.66)], orange)
    p.poly([(0.24, 0.68), (0.46, 0.44), (0.68, 0.68), (0.46, 0.6)], WHITE)
    p.eyes(0.46, 0.72, 0.11)
    p.oval(0.46, 0.47, 0.045, 0.035, BLACK)


def owl(p: Pen) -> None:
    brown, light = (136, 96, 62), (214, 184, 142)
    p.line([(-0.6, 0.04), (0.6, 0.1)], (96, 68, 46), 0.09)
    p.oval(0, 0.5, 0.34, 0.44, brown)
    p.oval(0, 0.4, 0.22, 0.3, light)
    for row in range(3):
        for k in range(-1, 2):
            p.oval(k * 0.11 + (row % 2) * 0.04, 0.3 + row * 0.1, 0.03, 0.02, brown)
    for side in (-1, 1):
        p.poly([(side * 0.3, 0.7), (side * 0.42, 0.2), (side * 0.2, 0.34)], (104, 72, 48))
        p.poly([(side * 0.14, 0.92), (side * 0.3, 1.08), (side * 0.32, 0.8)], brown)
        p.oval(side * 0.14, 0.76, 0.14, 0.14, light)
        p.oval(side * 0.14, 0.76, 0.09, 0.09, (250, 196, 60))
        p.oval(side * 0.14, 0.76, 0.05, 0.05, BLACK)
        p.poly([(side * 0.06, 0.08), (side * 0.14, 0.08), (side * 0.1, 0.0)], (222, 160, 60))
    p.poly([(-0.05, 0.7), (0.05, 0.7), (0, 0.58)], (222, 160, 60))


def whale(p: Pen) -> None:
    blue = (58, 92, 138)
    for dx, tall in ((-0.12, 1.0), (0.0, 1.1), (0.12, 1.0)):
        p.line([(0.34, 0.66), (0.34 + dx * 0.6, 0.86), (0.34 + dx * 1.6, tall - 0.08)], (206, 232, 244), 0.05)
    p.poly(
        [(-0.5, 0.34), (-0.86, 0.7), (-1.12, 0.84), (-0.98, 0.6), (-1.2, 0.5), (-0.9, 0.46), (-0.5, 0.14)],
        blue,
    )
    p.oval(0.02, 0.32, 0.68, 0.34, blue)
    p.poly([(-0.3, 0.1), (0.68, 0.26), (0.56, 0.1), (0.3, -0.02), (-0.1, 0.0)], (206, 218, 228))
    for k in range(4):
        p.line([(0.0 + k * 0.12, 0.02), (0.12 + k * 0.12, 0.14)], (150, 168, 188), 0.015)
    p.poly([(-0.02, 0.16), (-0.24, -0.08), (0.16, 0.1)], (44, 72, 112))
    p.oval(0.46, 0.36, 0.035, 0.035, WHITE)
    p.oval(0.465, 0.36, 0.02, 0.022, BLACK)
    for k in range(-4, 5):
        p.oval(k * 0.24, -0.06, 0.15, 0.05, (206, 232, 244))


def tiger(p: Pen) -> None:
    orange = (238, 148, 48)
    p.line([(-0.48, 0.5), (-0.74, 0.62), (-0.84, 0.86)], orange, 0.08)
    p.line([(-0.82, 0.8), (-0.85, 0.9)], BLACK, 0.085)
    _walker(p, orange, WHITE, orange)
    for k in range(6):
        x = -0.42 + k * 0.13
        p.poly([(x, 0.63), (x + 0.05, 0.63), (x + 0.01, 0.42)], BLACK)
    for side in (-1, 1):
        p.oval(0.46 + side * 0.19, 0.9, 0.08, 0.08, orange)
        p.oval(0.46 + side * 0.19, 0.9, 0.04, 0.04, BLACK)
    p.oval(0.46, 0.72, 0.26, 0.23, orange)
    p.oval(0.46, 0.62, 0.17, 0.12, WHITE)
    for dx in (-0.07, 0.0, 0.07):
        p.poly([(0.46 + dx - 0.02, 0.95), (0.46 + dx + 0.02, 0.95), (0.46 + dx, 0.82)], BLACK)
    for side in (-1, 1):
        for y in (0.78, 0.7):
            p.poly(
                [(0.46 + side * 0.26, y + 0.02), (0.46 + side * 0.26, y - 0.02), (0.46 + side * 0.15, y)],
                BLACK,
            )
    p.eyes(0.46, 0.76, 0.1)
    p.poly([(0.41, 0.68), (0.51, 0.68), (0.46, 0.62)], (206, 96, 96))


def panda(p: Pen) -> None:
    for side in (-1, 1):
        p.oval(side * 0.24, 0.08, 0.16, 0.11, BLACK)
        p.oval(side * 0.22, 0.96, 0.1, 0.1, BLACK)
    p.oval(0, 0.32, 0.36, 0.32, WHITE)
    for side in (-1, 1):
        p.oval(side * 0.32, 0.38, 0.1, 0.2, BLACK)
    p.oval(0, 0.74, 0.31, 0.27, WHITE)
    for side in (-1, 1):
        p.oval(side * 0.13, 0.76, 0.085, 0.1, BLACK)
        p.oval(side * 0.12, 0.78, 0.03, 0.03, WHITE)
    p.oval(0, 0.64, 0.06, 0.04, BLACK)
    p.line([(0.3, 0.3), (0.52, 0.86)], (104, 158, 72), 0.05)
    for dy in (0.0, 0.14):
        p.poly([(0.44, 0.62 + dy), (0.68, 0.72 + dy), (0.5, 0.74 + dy)], (124, 182, 84))


def heron(p: Pen) -> None:
    grey = (138, 156, 178)
    for x in (-0.06, 0.06):
        p.line([(x, 0.42), (x + 0.02, 0.2), (x, 0.0)], (90, 82, 70), 0.03)
    p.poly([(-0.5, 0.3), (-0.1, 0.58), (0.18, 0.52), (0.1, 0.36)], grey)
    p.oval(-0.04, 0.47, 0.24, 0.12, grey)
    p.poly([(-0.46, 0.32), (-0.06, 0.5), (0.04, 0.4)], (96, 112, 140))
    p.line([(0.12, 0.5), (0.26, 0.62), (0.12, 0.78), (0.2, 0.94)], (226, 230, 234), 0.085)
    p.oval(0.24, 0.96, 0.1, 0.065, (236, 238, 240))
    p.poly([(0.3, 0.99), (0.62, 0.93), (0.3, 0.92)], (236, 178, 60))
    p.line([(0.2, 1.01), (-0.06, 0.94)], BLACK, 0.035)
    p.oval(0.27, 0.975, 0.018, 0.018, BLACK)


def otter(p: Pen) -> None:
    brown, cream = (122, 84, 58), (222, 196, 164)
    p.poly([(-0.2, 0.14), (-0.7, 0.02), (-0.74, 0.1), (-0.2, 0.34)], brown)
    for side in (-1, 1):
        p.oval(side * 0.17, 0.05, 0.13, 0.06, (92, 62, 44))
    p.oval(0, 0.38, 0.24, 0.36, brown)
    p.oval(0, 0.36, 0.15, 0.28, cream)
    for side in (-1, 1):
        p.oval(side * 0.17, 0.48, 0.07, 0.15, brown)
        p.oval(side * 0.08, 0.4, 0.06, 0.05, (92, 62, 44))
        p.oval(side * 0.2, 0.95, 0.055, 0.055, brown)
    p.oval(0, 0.84, 0.24, 0.19, brown)
    p.oval(0, 0.77, 0.15, 0.1, cream)
    p.eyes(0, 0.87, 0.1, 0.03)
    p.oval(0, 0.81, 0.05, 0.035, BLACK)
    for side in (-1, 1):
        for dy in (0.0, 0.05):
            p.line([(side * 0.1, 0.77), (side * 0.28, 0.74 + dy)], WHITE, 0.01)


def lynx(p: Pen) -> None:
    coat = (204, 172, 130)
    p.oval(-0.52, 0.54, 0.09, 0.07, coat)
    p.oval(-0.58, 0.55, 0.05, 0.05, BLACK)
    _walker(p, coat, WHITE, coat)
    for k in range(16):
        p.oval(-0.42 + (k % 8) * 0.1, 0.5 + (k // 8) * 0.08, 0.022, 0.018, (112, 82, 56))
    _ears(p, 0.46, 0.86, 0.17, 0.11, coat, (112, 82, 56))
    for side in (-1, 1):
        p.line([(0.46 + side * 0.2, 1.02), (0.46 + side * 0.22, 1.16)], BLACK, 0.03)
        p.poly([(0.46 + side * 0.1, 0.62), (0.46 + side * 0.36, 0.54), (0.46 + side * 0.24, 0.76)], WHITE)
    p.oval(0.46, 0.74, 0.25, 0.2, coat)
    p.oval(0.46, 0.65, 0.13, 0.09, WHITE)
    p.eyes(0.46, 0.78, 0.1, 0.042, (196, 200, 80))
    p.poly([(0.42, 0.7), (0.5, 0.7), (0.46, 0.65)], (190, 110, 100))


ANIMALS: dict[str, tuple[str, Callable[[Pen], None]]] = {
    "fox": ("a red fox", fox),
    "owl": ("a brown owl", owl),
    "whale": ("a blue whale", whale),
    "tiger": ("a striped tiger", tiger),
    "panda": ("a giant panda", panda),
    "heron": ("a grey heron", heron),
    "otter": ("a river otter", otter),
    "lynx": ("a spotted lynx", lynx),
}
