"""Merge `train.verl` into the options of verl, last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policy.train.options.hydra import quote

# Choices of a whole file of verl's configuration, which Hydra's grammar sets without a prefix.
GROUPS = ("model_engine",)


def leaves(verl: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """The values of a nested mapping, by dotted name."""
    for key, value in verl.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping) and value:
            yield from leaves(value, name)
        else:
            yield name, value


def merged(options: Mapping[str, object], verl: Mapping[str, object]) -> list[str]:
    """Hydra overrides: `options`, with the values of `verl` in place of their own."""
    chosen = dict(leaves(verl))
    own = {name: value for name, value in options.items() if name.lstrip("+") not in chosen}
    lines = [f"{name}={quote(value)}" for name, value in own.items()]
    return lines + [
        f"{'' if name in GROUPS else '++'}{name}={quote(value)}" for name, value in chosen.items()
    ]
