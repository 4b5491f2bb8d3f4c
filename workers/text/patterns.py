"""The only regular expressions that read text of a model or of a service, and how they find a string's end.

`re` backtracks: where parts of a pattern can match the same text in two ways, it takes quadratic or
exponential time. The import contract "Untrusted text is scanned in linear time" keeps `re` out of the modules
that read such text. A pattern that one of them needs is added here, with the reason why it is linear. Loops
over these patterns start each search where the last one ended.
"""

from __future__ import annotations

import re

Pattern = re.Pattern[str]

# One character, or a fixed choice at each position: never backtracks.
QUOTE_OR_COMMENT = re.compile("['\"#]")
TOKEN_START = re.compile("['\"#/]")
BRACE = re.compile("[{}]")
ESCAPE_OR_QUOTE = {
    "'": re.compile(r"\\|'"),
    '"': re.compile(r'\\|"'),
    "'''": re.compile(r"\\|'''"),
    '"""': re.compile(r'\\|"""'),
    "‘": re.compile(r"\\|[’']"),
    "’": re.compile(r"\\|[’']"),
    "“": re.compile(r'\\|[”"]'),
    "”": re.compile(r'\\|[”"]'),
    "`": re.compile(r"\\|`"),
}
ESCAPE_QUOTE_OR_LINE = {"'": re.compile(r"\\|'|\n"), '"': re.compile(r'\\|"|\n')}
CODE_SPECIAL = re.compile(r"[\\'\"#\n]")
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
SURROGATE = re.compile("[\ud800-\udfff]")
NUMBER = re.compile(r"-?[0-9]{1,9}(?![\w.])")
CONSTANT = re.compile(r"(True|False|None|true|false|null)\b")

# The first character of a control token; what follows it is one of a fixed list of words.
CONTROL_BAR = re.compile("[<\uff1c\ufe64](?=[|\uff5c])")  # and wide forms
CONTROL_WORD = re.compile(
    r"<(?=/?(?:s|bos|eos|pad|unk|mask|think|tools?|tool_call|tool_response|image|img|video|audio|ref|box|quad"
    r"|start_of_turn|end_of_turn|start_of_image|end_of_image|image_soft_token|IMG_CONTEXT|sop|eop)>)"
    r"|<(?=</?SYS>>|/?seed:|SPECIAL_[0-9]|extra_id_[0-9])"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|ARGS|CALL_ID|THINK"
    r"|MODEL_SETTINGS|IMG|IMG_BREAK|IMG_END|AUDIO|gMASK|sMASK|MASK|CLS|SEP|PAD|UNK|BOS|EOS)\])"
)
# Control characters, fillers, directions, variation selectors and tags; joiners are below.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
JOINERS = re.compile("([\u200c\u200d])[\u200c\u200d]++")
LOOSE_JOINER = re.compile("[\u200c\u200d](?=[\x00-\x7f])|(?<=[\x00-\x7f])[\u200c\u200d]")

# One possessive run (`++`, `*+`) gives nothing back, so a failure costs the run once. A run cannot be entered
# from within by a later search: the pattern before it ends where the run begins.
SPACE = re.compile(r"\s*+")
MARKUP = re.compile(r"</?\w++>")  # what fails at one `<` holds no other `<`

# At most two possessive runs of at most 100 characters; a run cannot be entered by a later search, as above.
_GAP = r"\s{0,100}+"
MARK = re.compile(
    rf"(?P<DICTIONARY><imgen>{_GAP}\{{{_GAP}(?=['\"‘’“”`}}#/]|[^\W\d_]))"
    r"|(?P<MENTION><imgen>)|(?P<CLOSE></imgen>)|(?P<THINK><think>)|(?P<UNTHINK></think>)"
)
OPENING = re.compile(rf"<imgen>{_GAP}(\{{{_GAP})?")

# One class, repeated, with nothing behind it: never gives anything back.
WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W\d_぀-ヿ㐀-鿿]+")  # Chinese and Japanese characters count singly
TERM = re.compile(r"[^\W_]+")
LATIN_WORD = re.compile(r"[A-Za-z]{2,}")

# Fixed words and one gap of at most 30 characters: a constant number of steps at each position.
_PICTURE = r"(image|picture|photo|figure|chart|illustration|diagram)s?"
ANNOUNCEMENT = re.compile(
    rf"\b(here|below|above|following|attached)\b[^.!?\n]{{0,30}}\b{_PICTURE}\b"
    rf"|\b{_PICTURE} (below|above|that follows|is shown|follows)\b"
    r"|\bimgen\b|```",
    re.IGNORECASE,
)
PICTURES = re.compile(r"\b(image|picture|photo|photograph|chart|plot|figure|illustration|painting)s?\b", re.I)

QUOTES = "'\"‘’“”`"
"""Characters with which a model opens a string."""


def quote_at(text: str, at: int) -> str:
    """The quote at `at`, all three characters of a triple one."""
    quote = text[at]
    return quote * 3 if quote in "'\"" and text.startswith(quote * 3, at) else quote


def closing(text: str, at: int, pattern: Pattern) -> int:
    """The first match of `pattern` (a backslash or a quote) that no backslash escapes; else the end."""
    while found := pattern.search(text, at):
        if found[0] != "\\":
            return found.start()
        at = found.end() + 1
    return len(text)
