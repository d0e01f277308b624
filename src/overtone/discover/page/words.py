"""Numbers in words: how the page and the terminal write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

NONE = "–"


def number(value: Any, digits: int = 3) -> str:
    """A number to `digits` significant digits without idle zeros, thousands set apart; whole numbers in full; "–" for
    None, NaN and infinity; text as it is."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return NONE
    if value == 0 or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    if places > 6:
        return f"{value:.1e}".replace("-", "−")
    text = f"{value:,.{places}f}"
    return (text.rstrip("0").rstrip(".") if places else text).replace(",", "\u202f").replace("-", "−")


def percent(value: Any) -> str:
    """A share as a percentage with at most three digits; "–" for None."""
    if not isinstance(value, int | float):
        return NONE
    scaled = 100 * value
    return f"{scaled:.{0 if abs(scaled) >= 99.95 else 1}f}".replace("-", "−") + "\u202f%"


def interval(low: Any, high: Any, write: Any = number) -> str:
    """ "[low, high]", or "" if either end is missing."""
    return "" if low is None or high is None else f"[{write(low)}, {write(high)}]"


def estimate(value: Mapping[str, Any] | None, write: Any = number) -> str:
    """An Estimate's plain data as "value [low, high]"; "–" for None."""
    if not value or value.get("value") is None:
        return NONE
    return f"{write(value['value'])} {interval(value.get('low'), value.get('high'), write)}".strip()


def apart(*values: Any, most: int = 6) -> list[str]:
    """Numbers to be compared: each to as many significant digits, 3 to `most`, as it takes to tell them apart."""
    known = len({value for value in values if value is not None})
    for digits in range(3, most + 1):
        written = [number(value, digits) for value in values]
        if len(set(written) - {NONE}) >= known:
            break
    return written


def visible(token: str) -> str:
    """A token as it can be read: outer spaces left out, line breaks as "↵", "␣" for nothing but spaces."""
    return token.replace("\r", "").replace("\n", "↵").strip() or "␣"


def rounded(text: str) -> str:
    """The text with every number of more than four decimals written to three significant digits."""
    return re.sub(r"\d+\.\d{5,}", lambda found: number(float(found[0])), text)


def signed(value: Any) -> str:
    """A strength with its sign: "+4", "−2", "0"."""
    return f"+{number(value)}" if isinstance(value, int | float) and value > 0 else number(value)


def duration(seconds: Any) -> str:
    """Seconds as "8.1 s", "2 min 1 s" or "1 h 4 min"."""
    if not isinstance(seconds, int | float):
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
