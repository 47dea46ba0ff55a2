"""From a data set's own cells to text: the question, the reference answer, the level.

Data sets store the same answer in many ways: `204`, `"025"`, `27.0`, `"... #### 1,234"`,
`"\\boxed{204}"`, `["$2$"]`, `'["34"]'`. One decoder each, by name, in ENCODINGS; every decoder
raises ValueError with the reason where a cell is not what its name promises, and gives "" where
there is nothing in it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

MAX_ANSWER = 500  # Characters; the longest in the seven benchmarks has 210. Prose has more.
MAX_EXACT = 2**53  # Beyond it a float no longer says which integer it was.

PREFIXES = (
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: $Answer (without quotes) where $Answer is the answer to the problem.",
    "Solve the following math problem step by step. The last line of your response should be of "
    "the form Answer: \\boxed{$Answer} (without quotes) where $Answer is the answer to the "
    "problem.",
)
SUFFIXES = (
    'Remember to put your answer on its own line after "Answer:".',
    "Let's think step by step and output the final answer within \\boxed{}.",
    'Let\'s think step by step and output the final answer after "####".',
    "Please reason step by step, and put your final answer within \\boxed{}.",
)
"""Instructions that training sets bake into their prompts (DAPO, verl, Qwen). The template asks
for the answer; two instructions would contradict each other."""


def text_of(cell: Any) -> str:
    """A cell as stripped text; "" for none. Numbers as people write them: 27.0 is "27"."""
    if cell is None:
        return ""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        raise ValueError(f"type {type(cell).__name__}, not text or a number")
    if isinstance(cell, float):
        return _float_text(cell)
    text = str(cell).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no text") from None
    return text


def _float_text(number: float) -> str:
    if not math.isfinite(number):
        raise ValueError(f"{number}, not a number")
    return str(int(number)) if number.is_integer() and abs(number) < MAX_EXACT else repr(number)


def question_text(cell: Any) -> str:
    """A question: text, or a chat of which the one user message is it; without an instruction."""
    if isinstance(cell, list):
        cell = _user_message(cell)
    if cell is not None and not isinstance(cell, str):
        raise ValueError(f"type {type(cell).__name__}, not text")
    text = text_of(cell)
    for prefix in PREFIXES:
        text = text.removeprefix(prefix).strip()
    for suffix in SUFFIXES:
        text = text.removesuffix(suffix).strip()
    return text


def _user_message(messages: list[Any]) -> Any:
    if not all(isinstance(message, dict) for message in messages):
        raise ValueError("a list, but not of chat messages")
    roles = [message.get("role") for message in messages]
    if [role for role in roles if role != "system"] != ["user"]:
        raise ValueError(f"a chat of {len(roles)} messages, not one question")
    return messages[roles.index("user")].get("content")


def label_text(cell: Any) -> str:
    """An id or a subject, which tables print: nothing that moves a terminal's cursor."""
    return "".join(filter(str.isprintable, text_of(cell)))


def level_text(cell: Any) -> str:
    """5, 5.0, "5" and "Level 5" are all "5"; "Level ?" is none."""
    text = label_text(cell).removeprefix("Level ").strip()
    return "" if text == "?" else re.sub(r"\.0+$", "", text)


# --- answers ----------------------------------------------------------------------------------


WHOLE = re.compile(r"([+-]?)0*(\d{1,99})(?:\.0*)?")


def plain(cell: Any) -> str:
    """Text or a number, without dollars around all of it; whole numbers without padding: "025" is
    "25", "27.0" is "27"."""
    text = text_of(cell)
    for mark in ("$$", "$"):
        inner = text[len(mark) : -len(mark)]
        is_wrapped = text.startswith(mark) and text.endswith(mark) and len(text) > 2 * len(mark)
        if is_wrapped and not inner.endswith("\\") and not re.search(r"(?<!\\)\$", inner):
            text = inner.strip()
    match = WHOLE.fullmatch(text)
    return match[1].removeprefix("+") + match[2] if match else text


def integer(cell: Any) -> str:
    """As `plain`, and it must be a whole number."""
    text = plain(cell)
    if text and not re.fullmatch(r"-?\d+", text):
        raise ValueError(f"{_short(text)}, not a whole number")
    return text


def after_hashes(cell: Any) -> str:
    """GSM8K: a worked solution, then `#### 1,234`."""
    text = text_of(cell)
    _, hashes, answer = text.rpartition("####")
    if text and not hashes:
        raise ValueError("no '####' before the answer")
    return plain(re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer))


def boxed(cell: Any) -> str:
    """A solution: what its last `\\boxed{}` holds."""
    text = text_of(cell)
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if not text:
        return ""
    if start < 0:
        raise ValueError("no \\boxed{} in it")
    opened = re.match(r"\\(?:boxed|fbox)\s*", text[start:])
    rest = text[start + opened.end() :]
    if not rest.startswith("{"):  # \boxed 7
        return plain(re.match(r"[^\s$]*", rest)[0])
    depth = 0
    for match in re.finditer(r"\\.|[{}]", rest, re.DOTALL):  # An escaped brace is no brace.
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return plain(rest[1 : match.start()])
    raise ValueError("a \\boxed{ that is never closed")


def listed(cell: Any) -> str:
    """A list: its item, or its items joined by commas."""
    if cell is None:
        return ""
    if not isinstance(cell, list):
        raise ValueError(f"type {type(cell).__name__}, not a list")
    return ", ".join(filter(None, map(plain, cell)))


def json_listed(cell: Any) -> str:
    """A JSON list inside a string: '["34"]'."""
    text = text_of(cell)
    try:
        return listed(json.loads(text)) if text else ""
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{_short(text)}, not a JSON list") from None


def guessed(cell: Any) -> str:
    """Whichever of the others fits, for a file that says nothing about itself. A JSON list counts
    only with quoted items: `[1, 2]` is an interval."""
    if isinstance(cell, list):
        return listed(cell)
    text = text_of(cell)
    if "\\boxed" in text or "\\fbox" in text:
        return boxed(text)
    if "####" in text:
        return after_hashes(text)
    if re.match(r'\[\s*"', text) and text.endswith("]"):
        return json_listed(text)
    return plain(cell)


ENCODINGS: dict[str, Callable[[Any], str]] = {
    "plain": plain,
    "integer": integer,
    "hashes": after_hashes,
    "boxed": boxed,
    "list": listed,
    "json-list": json_listed,
    "guess": guessed,
}


def answer_text(cell: Any, encoding: str) -> str:
    answer = ENCODINGS[encoding](cell)
    if len(answer) > MAX_ANSWER:
        raise ValueError(f"{len(answer)} characters without \\boxed{{}} or '####': no answer")
    return answer


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
