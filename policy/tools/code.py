"""Charts by code as the model calls them."""

from __future__ import annotations

from importlib.metadata import version

from policy.tool import Code, Tool, ToolParams
from workers.messages import CodePayload
from workers.sandbox.charts.style import LIBRARIES


class CodeParams(ToolParams):
    code: Code


def _libraries() -> str:
    """What chart code may import, such as "matplotlib 3.11, numpy 2.3": the versions that are installed."""
    return ", ".join(f"{name} {'.'.join(version(name).split('.')[:2])}" for name in LIBRARIES)


TOOL = Tool(
    name="code",
    params=CodeParams,
    prompt=f"runs Python 3.11 that draws a chart, with {_libraries()} and no network. plt, pd, sns and np "
    "are already imported. Draw one figure; do not call plt.show or plt.savefig. Labels may be in any "
    "language: leave the font as it is. For numbers, comparisons and trends.",
    payload=lambda params, _image: CodePayload.model_validate(params),
    weight=0.4,
    caption="Plotted",
    code_budget=True,
    order=30,
)
