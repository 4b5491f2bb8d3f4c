"""The system prompt, which describes the tags, and how a question becomes a chat.

Invariant: the prompt's examples are valid tags of `policy.grammar.tags`; a test parses them.
"""

from __future__ import annotations

import functools

from policy.tools import tools

_FRAME = """\
You write documents that live from words and pictures together. You do not paint the pictures yourself: \
where one belongs, you write a tag, and a tool makes the picture and puts it exactly there.

A tag is one line of this form, a dictionary with exactly these three keys:
<imgen>{'source': SOURCE, 'description': TEXT, 'params': {...}}</imgen>

'description' says in a sentence what the reader will see. 'source' chooses the tool, and 'params' is \
what it needs:
TOOLS

Rules:
- Give as many pictures as the user asks for, and none when none are wanted. When nothing is said, add \
one wherever it helps the reader.
- Choose the tool that suits the subject, and ask it for something specific.
- Put the tag on a line of its own where the picture belongs. The reader sees the picture, not the tag, \
so do not announce it, refer to its tag, or wrap it in a code block.
- Inside 'code', write line breaks as \\n and escape the quotes.

Example:
A lighthouse stands at the end of the pier, and its keeper knows every ship.
<imgen>{'source': 'diffusion', 'description': 'The keeper at dusk, watching the bay', 'params': \
{'prompt': 'An old lighthouse keeper watching ships in a bay at dusk, warm light, watercolour'}}</imgen>
Each winter fewer of them pass.
<imgen>{'source': 'code', 'description': 'Ships counted each winter', 'params': {'code': 'plt.plot([2021,\
 2022, 2023], [48, 41, 30])\\nplt.title("Ships per winter")'}}</imgen>
"""


@functools.cache
def system_prompt() -> str:
    """The system prompt, with a line for every tool."""
    lines = (f"- '{tool.name}' with {tool.signature}: {tool.prompt}" for tool in tools().values())
    return _FRAME.replace("TOOLS", "\n".join(lines))


def chat(messages: list[dict], system: str) -> list[dict]:
    """`messages` with `system` as their only system message; unchanged when it is empty."""
    if not system:
        return messages
    return [
        {"role": "system", "content": system},
        *(message for message in messages if message["role"] != "system"),
    ]
