"""verl's configuration of a run, composed as verl does it, and what it cannot be (verl 0.9.1).

Invariants:
- verl is imported only where `train.verl` is used, since that takes seconds;
- a refusal names the key that was set and what to set instead.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from policy.settings import TrainSettings
from policy.train.gradient.refusals import gradient_problems
from policy.train.options.combinations import combined_problems
from policy.train.options.names import name_problems
from policy.train.options.passthrough import GROUPS, leaves
from policy.train.options.refusals import unread_problems
from workers.errors import ConfigError
from workers.text.names import near_names

PLAIN = frozenset({bool, int, float, str, type(None)})


def compose(overrides: Sequence[str], name: str = "ppo_trainer") -> Any:
    """verl's configuration of that name with these options, without importing verl. Raises `ConfigError`."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("verl is not installed; install llmi with its extra cpu or gpu")
    tree = Path(spec.submodule_search_locations[0]) / "trainer" / "config"
    # Options that begin with hydra. are those of its own program.
    own = [option for option in overrides if not option.startswith("hydra.")]
    try:
        with hydra.initialize_config_dir(config_dir=str(tree), version_base=None):
            return hydra.compose(name, overrides=own)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"verl {version('verl')} refuses the options: {error}") from error


def check(train: TrainSettings, overrides: Sequence[str]) -> None:
    """Raise one `ConfigError` with everything in these options of a run that would fail or have no effect."""
    problems = list(unread_problems(train.verl))
    if train.verl and not problems:
        chosen = dict(leaves(train.verl))
        kept = [line for line in overrides if _name(line) not in chosen or _name(line) in GROUPS]
        problems += misfits(chosen, compose(kept))
    if not problems:
        config = compose(overrides)
        problems += [*combined_problems(train, config), *gradient_problems(config)]
        problems += [*name_problems(config), *_invalid(config)] if train.verl and not problems else []
    if problems:
        raise ConfigError("\n".join(problems))


def misfits(chosen: Mapping[str, object], config: Any, key: str = "train.verl") -> Iterator[str]:
    """A problem for each option that neither verl's files nor its classes have, or of another type.

    `key`: the setting that holds them.
    """
    for name, value in chosen.items():
        if name in GROUPS:
            continue
        above, section, rest = _deepest(config, name.split("."))
        if not rest and isinstance(section, Mapping) and value != {}:
            yield f"{key}.{name}: is a section, and its options go below it"
        elif rest and not isinstance(section, Mapping):
            if section is not None:
                yield f"{key}.{'.'.join(above)}: is a value ({section!r}), and nothing goes below it"
        elif rest and (known := _fields(section)) is not None and rest[0] not in known:
            near = near_names(rest[0], known)
            hint = f"did you mean {'.'.join([*above, near[0]])}?" if near else f"valid: {', '.join(known)}"
            where = ".".join([*above, rest[0]])
            yield f"{key}.{where}: verl {version('verl')} has no such option; {hint}"
        elif wrong := _wrong_type(config, name, value):
            yield f"{key}.{name}: {wrong} (it is {value!r})"


def _name(override: str) -> str:
    return override.partition("=")[0].lstrip("+")


def _deepest(config: Any, path: list[str]) -> tuple[list[str], Any, list[str]]:
    """The deepest section of `config` on `path`: the way to it, the section, and what is left of the path."""
    from omegaconf import DictConfig

    here, done = config, 0
    while done < len(path) and isinstance(here, DictConfig) and path[done] in here:
        here, done = here[path[done]], done + 1
    return path[:done], here, path[done:]


def _fields(section: Any) -> list[str] | None:
    """The names that may stand in a section; None: any, as in a mapping that verl leaves empty."""
    if not section:
        return None
    names = set(section)
    if target := section.get("_target_"):
        from hydra.utils import get_class

        names |= {field.name for field in dataclasses.fields(get_class(target))}
    return sorted(names - {"_target_"})


def _wrong_type(config: Any, name: str, value: object) -> str:
    """What is wrong with the value of an option that a class of verl declares as a plain type."""
    above, _, key = name.rpartition(".")
    *_, section, rest = _deepest(config, above.split("."))
    target = section.get("_target_") if isinstance(section, Mapping) and not rest else None
    if not target or value is None is section.get(key):
        return ""
    from hydra.utils import get_class

    kind: Any = typing.get_type_hints(get_class(target)).get(key)
    if not PLAIN.issuperset(typing.get_args(kind) or (kind,)):
        return ""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    return ""


def _invalid(config: Any) -> Iterator[str]:
    """What verl's own classes and its own validation refuse."""
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            for section in (config.algorithm, config.actor_rollout_ref.rollout):
                omega_conf_to_dataclass(section)
            validate_config(config, need_reference_policy(config), need_critic(config))
    except Exception as error:  # noqa: BLE001 - verl's classes raise many types
        yield f"train.verl: verl {version('verl')} refuses the options: {' '.join(str(error).split())}"
