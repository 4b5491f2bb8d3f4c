"""Read a parquet file in the LLM-I schema as a table.

Invariant: any problem with the file or its columns raises a short `ConfigError` with the file and what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from policy.data.files import IMAGES, head, misnamed, shown, some
from workers.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

NEEDED, OPTIONAL = ("prompt", "data_source", "extra_info"), ("images",)
INFO = ("image_num", "tools", "question", "split")  # of extra_info
WHAT = "a parquet file in the LLM-I schema"
MAGIC = b"PAR1"


def read_table(path: Path) -> pa.Table:
    """Read the columns in use; at least one row. Raises `ConfigError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = head(path, WHAT)
    if not first.startswith(MAGIC):
        raise ConfigError(f"{path}: not a readable parquet file; {_hint(path, first)}")
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow)
            known = [name for name in file.schema_arrow.names if name in (*NEEDED, *OPTIONAL)]
            table = file.read(columns=known)
    except ConfigError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(
            f"{path}: not a readable parquet file ({_reason(error)}); write or download it again"
        ) from error
    if not table.num_rows:
        raise ConfigError(f"{path}: has no rows; write or download it again")
    return table


def records(path: Path, table: pa.Table) -> list[dict[str, Any]]:
    """The rows without their images. Raises `ConfigError` for a value that Python cannot represent."""
    import pyarrow as pa

    plain = table.drop_columns(["images"]) if "images" in table.column_names else table
    try:
        return plain.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise ConfigError(
            f"{path}: a value of {', '.join(plain.column_names)} cannot be read ({_reason(error)}); "
            "write the file again, with text in UTF-8"
        ) from error


def _check_columns(path: Path, schema: pa.Schema) -> None:
    import pyarrow as pa

    names = list(schema.names)
    wrong = misnamed(names, (*NEEDED, *OPTIONAL), IMAGES)
    meant = {known: name for name, known in wrong.items()}
    for name in NEEDED:
        if name not in names:
            hint = f"did you mean {shown(meant[name])}? Rename it" if name in meant else f"name {WHAT}"
            raise ConfigError(f"{path}: column {name} is missing (it has {some(names)}); {hint}")
    for name, known in wrong.items():
        raise ConfigError(
            f"{path}: column {shown(name)}: did you mean {known}? Rename it, or leave the column out"
        )
    for name in (*NEEDED, *OPTIONAL):
        if names.count(name) > 1:
            raise ConfigError(f"{path}: column {name} occurs twice; leave one out")
    info = schema.field("extra_info").type
    if pa.types.is_struct(info):
        fields = [info.field(at).name for at in range(info.num_fields)]
        for name, known in misnamed(fields, INFO).items():
            raise ConfigError(
                f"{path}: extra_info.{shown(name)}: did you mean {known}? Rename it, or leave it out"
            )


def _hint(path: Path, first: bytes) -> str:
    """How to convert the file to parquet, guessed from its start and name."""
    if first.lstrip()[:1] in (b"{", b"["):
        lines = "" if first.lstrip()[:1] == b"[" else ", lines=True"
        return f"it looks like JSON; convert it: pandas.read_json(FILE{lines}).to_parquet(...)"
    if path.suffix in (".csv", ".tsv"):
        return "it looks like a text table; convert it: pandas.read_csv(FILE).to_parquet(...)"
    return f"name {WHAT}, or download it again"


def _reason(error: Exception) -> str:
    return shown((str(error) or type(error).__name__).splitlines()[0])
