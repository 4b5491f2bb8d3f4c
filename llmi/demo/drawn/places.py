"""The eight places, as backgrounds: each leaves room for a subject in the lower middle."""

from __future__ import annotations

from collections.abc import Callable

from llmi.demo.drawn.canvas import Canvas, Colour


def forest(c: Canvas) -> None:
    c.sky()
    c.ridge(0.62, 0.2, (96, 138, 104))
    c.ground(0.66, (92, 134, 74))
    for row, (base, height, shade) in enumerate([(0.68, 0.42, (58, 104, 78)), (0.76, 0.55, (38, 84, 58))]):
        step = 0.12 + 0.05 * row
        x = -0.05
        while x < c.width + 0.1:
            if row == 0 or abs(x - c.width / 2) > 0.3:
                _fir(c, x, base + c.chance.uniform(-0.01, 0.02), height * c.chance.uniform(0.75, 1.0), shade)
            x += step * c.chance.uniform(0.8, 1.3)


def _fir(c: Canvas, x: float, base: float, height: float, colour: Colour) -> None:
    c.box(x - 0.012, base - height * 0.2, x + 0.012, base, (92, 66, 46))
    for k in range(3):
        top, wide = base - height * (1 - 0.22 * k), height * (0.13 + 0.06 * k)
        c.poly([(x, top), (x - wide, top + height * 0.42), (x + wide, top + height * 0.42)], colour)


def harbor(c: Canvas) -> None:
    c.sky()
    c.ridge(0.56, 0.12, (112, 136, 150), peaks=3)
    c.ground(0.56, (58, 122, 156))
    _ripples(c, 0.6)
    for x in (0.08, c.width - 0.34):
        hull = c.chance.choice([(176, 58, 50), (236, 232, 220), (48, 74, 112)])
        c.poly([(x, 0.6), (x + 0.26, 0.6), (x + 0.21, 0.68), (x + 0.05, 0.68)], hull)
        c.line([(x + 0.13, 0.6), (x + 0.13, 0.26)], (92, 66, 46), 0.012)
        c.poly([(x + 0.14, 0.29), (x + 0.14, 0.56), (x + 0.25, 0.56)], (244, 240, 228))
        c.poly([(x + 0.12, 0.34), (x + 0.12, 0.56), (x + 0.04, 0.56)], (226, 218, 200))
    c.box(0, 0.86, c.width, 0.9, (146, 112, 78))
    c.box(0, 0.9, c.width, 1, (112, 84, 58))
    for k in range(9):
        c.line([(k * c.width / 8, 0.86), (k * c.width / 8 - 0.03, 1)], (88, 64, 44), 0.006)


def desert(c: Canvas) -> None:
    c.sky()
    c.ridge(0.62, 0.14, (222, 170, 108), peaks=2, rough=0.1)
    c.ridge(0.72, 0.1, (232, 186, 122), peaks=3, rough=0.1)
    c.ground(0.76, (240, 200, 140), 0.18)
    for x, height in ((0.14, 0.34), (c.width - 0.16, 0.26)):
        green = (74, 124, 74)
        c.box(x - 0.025, 0.78 - height, x + 0.025, 0.78, green)
        c.oval(x, 0.78 - height, 0.025, 0.03, green)
        for side, up in ((-1, 0.55), (1, 0.4)):
            arm = x + side * 0.08
            c.line(
                [(x, 0.78 - height * up), (arm, 0.78 - height * up), (arm, 0.7 - height * up)], green, 0.03
            )


def valley(c: Canvas) -> None:
    c.sky()
    c.ridge(0.6, 0.34, (132, 146, 178), peaks=3)
    c.ridge(0.66, 0.2, (104, 152, 116), peaks=4)
    c.ground(0.7, (128, 178, 88))
    mid = c.width / 2
    c.poly([(mid - 0.02, 0.68), (mid + 0.02, 0.68), (mid + 0.3, 1), (mid - 0.1, 1)], (104, 170, 208))
    for _ in range(26):
        flower = c.chance.choice([(250, 220, 90), (240, 120, 140), (250, 250, 250)])
        c.oval(c.chance.uniform(0, c.width), c.chance.uniform(0.78, 0.98), 0.01, 0.01, flower)


def island(c: Canvas) -> None:
    c.sky()
    c.ground(0.56, (52, 150, 180))
    _ripples(c, 0.58)
    mid = c.width / 2
    c.oval(mid, 0.92, 0.56, 0.22, (240, 218, 160))
    c.oval(mid, 0.98, 0.5, 0.2, (228, 202, 140))
    for x, lean in ((mid - 0.36, -0.1), (mid + 0.38, 0.12)):
        top = (x + lean, 0.36)
        c.line([(x, 0.82), (x + lean * 0.4, 0.58), top], (134, 98, 64), 0.03)
        for dx, dy in ((-0.16, 0.04), (-0.1, -0.08), (0.02, -0.11), (0.12, -0.06), (0.16, 0.05)):
            tip = (top[0] + dx, top[1] + dy)
            c.poly([top, (top[0] + dx * 0.5, top[1] + dy * 0.5 - 0.05), tip], (56, 134, 76))


def glacier(c: Canvas) -> None:
    c.sky()
    c.ridge(0.6, 0.42, (150, 170, 200), peaks=3, rough=0.9)
    for k in range(7):
        x, tall = (k + c.chance.uniform(-0.3, 0.3)) * c.width / 6, c.chance.uniform(0.18, 0.42)
        c.poly(
            [(x - 0.16, 0.74), (x - 0.03, 0.74 - tall), (x + 0.05, 0.78 - tall), (x + 0.17, 0.74)],
            (206, 230, 244),
        )
        c.poly([(x + 0.05, 0.78 - tall), (x + 0.17, 0.74), (x + 0.02, 0.74)], (160, 200, 228))
    c.ground(0.72, (232, 242, 250), 0.14)
    for _ in range(4):
        x, y = c.chance.uniform(0, c.width), c.chance.uniform(0.8, 0.98)
        c.line([(x, y), (x + 0.12, y + 0.02), (x + 0.2, y)], (166, 204, 230), 0.008)


def canyon(c: Canvas) -> None:
    c.sky()
    c.ridge(0.6, 0.16, (196, 128, 96), peaks=2, rough=0.1)
    c.ground(0.68, (214, 142, 96))
    for side in (0, 1):
        for k, colour in enumerate([(204, 110, 70), (182, 88, 58), (156, 70, 50)]):
            reach, top = 0.44 - 0.13 * k, 0.22 + 0.14 * k
            points = [
                (0.0, top),
                (reach * 0.8, top),
                (reach, top + 0.2),
                (reach * 1.1, 0.86 + 0.05 * k),
                (0.0, 1.0),
            ]
            c.poly([(c.width - x if side else x, y) for x, y in points], colour)
        for y in (0.34, 0.46, 0.6):
            x = c.width - 0.3 if side else 0.0
            c.line([(x, y), (x + 0.3, y)], (226, 150, 104), 0.008)
    mid = c.width / 2
    c.poly([(mid - 0.03, 0.68), (mid + 0.03, 0.68), (mid + 0.16, 1), (mid - 0.16, 1)], (94, 158, 178))


def village(c: Canvas) -> None:
    c.sky()
    c.ridge(0.6, 0.2, (120, 160, 122), peaks=3)
    c.ground(0.7, (140, 182, 104))
    x = 0.02
    while x < c.width - 0.1:
        wide, tall = c.chance.uniform(0.16, 0.22), c.chance.uniform(0.16, 0.24)
        wall = c.chance.choice([(240, 226, 200), (226, 196, 160), (214, 224, 228), (236, 208, 176)])
        roof = c.chance.choice([(178, 74, 58), (150, 88, 66), (96, 104, 128)])
        c.box(x, 0.72 - tall, x + wide, 0.72, wall)
        c.poly([(x - 0.02, 0.72 - tall), (x + wide / 2, 0.6 - tall), (x + wide + 0.02, 0.72 - tall)], roof)
        c.glow(x + wide * 0.28, 0.72 - tall * 0.62, 0.02, 0.026)
        c.glow(x + wide * 0.72, 0.72 - tall * 0.62, 0.02, 0.026)
        c.box(x + wide * 0.42, 0.72 - tall * 0.4, x + wide * 0.58, 0.72, (112, 76, 52))
        x += wide + c.chance.uniform(0.02, 0.08)
    mid = c.width / 2
    c.poly([(mid - 0.05, 0.72), (mid + 0.05, 0.72), (mid + 0.24, 1), (mid - 0.24, 1)], (216, 196, 158))


def _ripples(c: Canvas, top: float) -> None:
    for _ in range(16):
        x, y = c.chance.uniform(0, c.width), c.chance.uniform(top, 0.98)
        c.line([(x, y), (x + 0.1, y)], (160, 206, 222), 0.006)


PLACES: dict[str, Callable[[Canvas], None]] = {
    "forest": forest,
    "harbor": harbor,
    "desert": desert,
    "valley": valley,
    "island": island,
    "glacier": glacier,
    "canyon": canyon,
    "village": village,
}
