"""The runs of the overlap benchmark: what all variants share, and in what they differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmi.load.overlap.settings import OverlapSettings
from llmi.load.overlap.trial import configure
from llmi.load.training import Parts, read_settings
from workers.errors import ConfigError

DIFFER = {"steps", "warmup_batches", "admission"}


def test_variants_differ_in_admission_alone():
    settings = OverlapSettings(batch=3, n=4)
    configs = {
        name: configure(settings, name, Parts(Path("policy"), Path("p"))) for name in settings.variants
    }
    shared = [config.train.model_dump(exclude=DIFFER) for config in configs.values()]
    assert all(each == shared[0] for each in shared)
    assert {name: (c.train.warmup_batches, c.train.admission) for name, c in configs.items()} == {
        "blocking": (0.0, "fixed"),
        "blocking_wide": (0.0, "fixed"),
        "coupled": (1.0, "fixed"),
        "llmi": (1.0, "adaptive"),
    }
    assert all(config.workers.pools == () for config in configs.values())


def test_settings_are_read_from_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("batch: 2\nservices: {sigma: 0.1}\nvariants: {llmi: {warm: 1, steps: 2}}\n")
    settings = read_settings(OverlapSettings, file, "llmi bench overlap")
    assert {name: variant.warm for name, variant in settings.variants.items()} == {
        "blocking": 1, "blocking_wide": 1, "coupled": 4, "llmi": 1,
    }  # fmt: skip
    assert (settings.batch, settings.services.sigma, settings.n) == (2, 0.1, OverlapSettings().n)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("batchs: 2", "batchs"),
        ("services: {sigma: -1}", "services.sigma"),
        ("services: {slots: {diffusion: 2}}", "slots must name each of"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, named):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named):
        read_settings(OverlapSettings, file, "llmi bench overlap")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_settings(OverlapSettings, tmp_path / "none.yaml", "llmi bench overlap")
