"""The eight cities, each by its landmark before a skyline."""

from __future__ import annotations

from collections.abc import Callable

from llmi.demo.drawn.canvas import Canvas, Colour


def _town(
    c: Canvas, base: float, colours: tuple[Colour, ...], tallest: float = 0.2, gap: float = 0.0
) -> None:
    """A row of houses along the horizon, lower and sparser within `gap` of the middle."""
    x = -0.03
    while x < c.width:
        wide, tall = c.chance.uniform(0.06, 0.13), c.chance.uniform(0.35, 1.0) * tallest
        tall *= 0.45 if abs(x + wide / 2 - c.width / 2) < gap else 1.0
        c.box(x, base - tall, x + wide, base + 0.02, c.chance.choice(colours))
        for k in range(int(tall / 0.06)):
            for column in (0.3, 0.7):
                if c.chance.random() < 0.7:
                    c.glow(x + wide * column, base - tall + 0.035 + k * 0.055, 0.009, 0.012)
        x += wide + 0.006


def paris(c: Canvas) -> None:
    c.sky()
    _town(c, 0.76, ((214, 204, 190), (198, 186, 172), (170, 176, 190)), 0.17, 0.22)
    c.ground(0.76, (120, 166, 96))
    x, iron, dark = c.width / 2, (128, 98, 76), (96, 72, 56)
    left = [
        (x - 0.25, 0.86),
        (x - 0.17, 0.86),
        (x - 0.07, 0.6),
        (x - 0.035, 0.4),
        (x - 0.012, 0.1),
        (x, 0.04),
    ]
    outer = [(x - 0.25, 0.86), (x - 0.13, 0.62), (x - 0.07, 0.42), (x - 0.028, 0.16), (x, 0.04)]
    for mirror in (1, -1):
        shape = [*outer, *reversed(left)]
        c.poly([(x + mirror * (px - x), py) for px, py in shape], iron)
    c.poly([(x - 0.05, 0.44), (x + 0.05, 0.44), (x + 0.02, 0.12), (x - 0.02, 0.12)], iron)
    for y, half in ((0.62, 0.15), (0.42, 0.09), (0.16, 0.035)):
        c.box(x - half, y - 0.015, x + half, y + 0.015, dark)
    for k in range(5):
        y = 0.64 + k * 0.045
        for mirror in (1, -1):
            inner, outside = 0.075 + k * 0.02, 0.145 + k * 0.023
            c.line([(x + mirror * inner, y), (x + mirror * outside, y + 0.04)], dark, 0.006)
    c.line([(x, 0.06), (x, 0.0)], dark, 0.008)


def kyoto(c: Canvas) -> None:
    c.sky()
    c.ridge(0.7, 0.3, (108, 144, 122), peaks=3)
    c.ground(0.78, (146, 172, 106))
    x, red, roof = c.width / 2, (188, 62, 48), (66, 62, 74)
    for k in range(5):
        y, half = 0.8 - k * 0.13, 0.25 - k * 0.032
        c.box(x - half * 0.55, y - 0.09, x + half * 0.55, y, red)
        for dx in (-0.3, 0.0, 0.3):
            c.glow(x + dx * half, y - 0.045, 0.012, 0.02)
        c.poly(
            [
                (x - half * 1.12, y - 0.095),
                (x - half * 0.5, y - 0.15),
                (x + half * 0.5, y - 0.15),
                (x + half * 1.12, y - 0.095),
                (x + half, y - 0.075),
                (x - half, y - 0.075),
            ],
            roof,
        )
    c.line([(x, 0.15), (x, 0.02)], (206, 168, 84), 0.012)
    for tx, size in ((0.14, 0.12), (c.width - 0.16, 0.14), (0.3, 0.08), (c.width - 0.34, 0.07)):
        c.line([(tx, 0.84), (tx, 0.7)], (92, 66, 50), 0.02)
        for dx, dy in ((-0.5, 0.1), (0.5, 0.1), (0.0, -0.3)):
            c.oval(tx + dx * size, 0.66 + dy * size, size * 0.7, size * 0.6, (244, 178, 192))


def cairo(c: Canvas) -> None:
    c.sky()
    _town(c, 0.68, ((222, 190, 140), (208, 172, 122)), 0.1, 0.4)
    c.ground(0.68, (232, 194, 132), 0.18)
    for x, base, half, tall in ((0.28, 0.74, 0.3, 0.38), (0.78, 0.8, 0.42, 0.56), (1.16, 0.76, 0.2, 0.25)):
        x = x * c.width / 1.333
        c.poly([(x - half, base), (x, base - tall), (x + half * 0.3, base)], (226, 184, 116))
        c.poly([(x, base - tall), (x + half, base), (x + half * 0.3, base)], (184, 138, 82))
        for k in range(1, 6):
            y, reach = base - tall * k / 6, half * (1 - k / 6)
            c.line([(x - reach, y), (x + reach * 0.3, y)], (204, 162, 98), 0.005)
    px = c.width - 0.16
    c.line([(px, 0.94), (px - 0.02, 0.66)], (120, 86, 56), 0.025)
    for dx, dy in ((-0.12, 0.04), (-0.08, -0.06), (0.03, -0.09), (0.1, -0.03), (0.12, 0.05)):
        c.poly(
            [(px - 0.02, 0.66), (px - 0.02 + dx * 0.5, 0.62 + dy * 0.5), (px - 0.02 + dx, 0.66 + dy)],
            (76, 128, 70),
        )


def lima(c: Canvas) -> None:
    c.sky()
    c.ridge(0.66, 0.2, (172, 150, 130), peaks=3)
    _town(c, 0.74, ((232, 196, 120), (206, 130, 100), (130, 166, 178), (238, 224, 196)), 0.18, 0.34)
    c.ground(0.78, (216, 200, 172))
    x, wall, trim = c.width / 2, (244, 214, 140), (252, 240, 210)
    c.box(x - 0.22, 0.48, x + 0.22, 0.84, wall)
    c.poly([(x - 0.1, 0.48), (x, 0.36), (x + 0.1, 0.48)], wall)
    for side in (-1, 1):
        t = x + side * 0.27
        c.box(t - 0.07, 0.3, t + 0.07, 0.84, wall)
        c.box(t - 0.08, 0.44, t + 0.08, 0.46, trim)
        c.box(t - 0.08, 0.29, t + 0.08, 0.31, trim)
        c.oval(t, 0.28, 0.055, 0.07, (150, 110, 84))
        c.line([(t, 0.22), (t, 0.12)], (92, 72, 60), 0.01)
        c.line([(t - 0.02, 0.15), (t + 0.02, 0.15)], (92, 72, 60), 0.01)
        c.glow(t, 0.37, 0.025, 0.04)
        c.glow(t, 0.56, 0.02, 0.035)
    c.box(x - 0.05, 0.64, x + 0.05, 0.84, (112, 74, 52))
    c.oval(x, 0.64, 0.05, 0.05, (112, 74, 52))
    c.oval(x, 0.53, 0.035, 0.035, (120, 150, 170))


def oslo(c: Canvas) -> None:
    c.sky()
    c.ridge(0.62, 0.18, (92, 122, 112), peaks=3)
    _town(c, 0.64, ((196, 88, 72), (226, 190, 130), (214, 220, 224), (110, 130, 150)), 0.16, 0.3)
    c.ground(0.64, (64, 112, 148))
    x = c.width / 2
    c.poly(
        [(x - 0.48, 0.74), (x + 0.46, 0.74), (x + 0.46, 0.7), (x + 0.2, 0.5), (x - 0.1, 0.56)],
        (244, 246, 250),
    )
    c.poly([(x - 0.12, 0.7), (x + 0.3, 0.7), (x + 0.2, 0.54), (x - 0.04, 0.58)], (120, 160, 184))
    for k in range(6):
        c.line([(x - 0.1 + k * 0.07, 0.7), (x - 0.03 + k * 0.045, 0.57)], (226, 236, 242), 0.008)
    c.box(x + 0.02, 0.42, x + 0.2, 0.53, (232, 236, 240))
    c.poly([(x - 0.6, 0.8), (x - 0.1, 0.72), (x + 0.46, 0.74), (x + 0.5, 0.78)], (226, 230, 236))
    for _ in range(14):
        rx, ry = c.chance.uniform(0, c.width), c.chance.uniform(0.82, 0.98)
        c.line([(rx, ry), (rx + 0.1, ry)], (150, 190, 212), 0.006)
    bx = 0.14
    c.poly([(bx, 0.9), (bx + 0.2, 0.9), (bx + 0.16, 0.95), (bx + 0.04, 0.95)], (160, 60, 50))
    c.poly([(bx + 0.1, 0.7), (bx + 0.1, 0.88), (bx + 0.2, 0.88)], (250, 248, 240))


def quito(c: Canvas) -> None:
    c.sky()
    x = c.width / 2
    c.poly([(x - 0.5, 0.74), (x - 0.1, 0.2), (x + 0.02, 0.2), (x + 0.5, 0.74)], (110, 124, 146))
    c.poly(
        [
            (x - 0.21, 0.35),
            (x - 0.1, 0.2),
            (x + 0.02, 0.2),
            (x + 0.16, 0.35),
            (x + 0.04, 0.31),
            (x - 0.06, 0.37),
        ],
        (248, 250, 252),
    )
    c.oval(x - 0.02, 0.13, 0.07, 0.04, (206, 206, 212))
    c.oval(x + 0.06, 0.08, 0.09, 0.04, (216, 216, 222))
    c.ridge(0.74, 0.12, (96, 142, 98), peaks=4)
    _town(c, 0.82, ((240, 236, 226), (236, 200, 150), (214, 150, 120)), 0.12)
    c.ground(0.84, (196, 176, 150))
    for side in (-1, 1):
        t = x + side * 0.12
        c.box(t - 0.055, 0.5, t + 0.055, 0.88, (222, 218, 206))
        c.poly([(t - 0.065, 0.5), (t, 0.3), (t + 0.065, 0.5)], (168, 166, 164))
        c.oval(t, 0.57, 0.03, 0.03, (250, 246, 230))
        c.glow(t, 0.68, 0.015, 0.035)
    c.box(x - 0.07, 0.62, x + 0.07, 0.88, (206, 200, 188))
    c.poly([(x - 0.08, 0.62), (x, 0.52), (x + 0.08, 0.62)], (206, 200, 188))
    c.oval(x, 0.66, 0.035, 0.035, (96, 124, 160))
    c.box(x - 0.03, 0.77, x + 0.03, 0.88, (104, 76, 60))


def delhi(c: Canvas) -> None:
    c.sky()
    _town(c, 0.74, ((226, 196, 160), (206, 166, 132), (188, 150, 128)), 0.12, 0.4)
    c.ground(0.74, (136, 168, 96))
    x, stone, dark = c.width / 2, (216, 148, 104), (168, 102, 70)
    c.box(x - 0.24, 0.36, x + 0.24, 0.84, stone)
    c.box(x - 0.27, 0.33, x + 0.27, 0.38, dark)
    c.box(x - 0.22, 0.26, x + 0.22, 0.33, stone)
    c.box(x - 0.18, 0.22, x + 0.18, 0.26, dark)
    c.oval(x, 0.22, 0.1, 0.035, stone)
    hollow = c.light.low if not c.light.stars else (40, 48, 84)
    c.oval(x, 0.56, 0.12, 0.12, hollow)
    c.box(x - 0.12, 0.56, x + 0.12, 0.84, hollow)
    for side in (-1, 1):
        c.box(x + side * 0.18 - 0.03, 0.6, x + side * 0.18 + 0.03, 0.84, dark)
        c.oval(x + side * 0.18, 0.6, 0.03, 0.03, dark)
    c.poly([(x - 0.12, 0.84), (x + 0.12, 0.84), (x + 0.34, 1), (x - 0.34, 1)], (226, 206, 176))
    for tx in (0.12, 0.28, c.width - 0.12, c.width - 0.28):
        c.box(tx - 0.01, 0.7, tx + 0.01, 0.8, (96, 70, 50))
        c.oval(tx, 0.66, 0.07, 0.08, (82, 132, 78))


def rome(c: Canvas) -> None:
    c.sky()
    _town(c, 0.72, ((226, 190, 146), (214, 160, 120), (196, 140, 108)), 0.13, 0.5)
    c.ground(0.74, (188, 176, 136))
    x, stone, shade = c.width / 2, (222, 196, 156), (116, 88, 66)
    c.oval(x, 0.8, 0.48, 0.08, (196, 166, 126))
    c.poly(
        [
            (x - 0.46, 0.8),
            (x - 0.46, 0.4),
            (x - 0.36, 0.33),
            (x + 0.08, 0.3),
            (x + 0.16, 0.44),
            (x + 0.3, 0.46),
            (x + 0.34, 0.56),
            (x + 0.46, 0.58),
            (x + 0.46, 0.8),
        ],
        stone,
    )
    c.oval(x, 0.8, 0.46, 0.06, stone)
    for row, (y, right) in enumerate([(0.46, 0.1), (0.6, 0.3), (0.74, 0.44)]):
        k = x - 0.4
        while k < x + right:
            c.box(k - 0.024, y, k + 0.024, y + 0.07, shade)
            c.oval(k, y, 0.024, 0.03, shade)
            k += 0.085
        c.line(
            [(x - 0.46, y + 0.09), (x + right + 0.04, y + 0.09)], (190, 160, 122), 0.01 if row < 2 else 0.006
        )
    for tx in (0.08, c.width - 0.1):
        c.box(tx - 0.01, 0.7, tx + 0.01, 0.84, (96, 70, 50))
        c.oval(tx, 0.62, 0.06, 0.12, (70, 112, 72))


CITIES: dict[str, tuple[str, Callable[[Canvas], None]]] = {
    "Paris": ("the Eiffel Tower", paris),
    "Kyoto": ("a red pagoda and cherry trees", kyoto),
    "Cairo": ("the pyramids of Giza", cairo),
    "Lima": ("the yellow cathedral", lima),
    "Oslo": ("the white opera house", oslo),
    "Quito": ("the basilica and the volcano", quito),
    "Delhi": ("the India Gate", delhi),
    "Rome": ("the Colosseum", rome),
}
