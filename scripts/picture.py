"""Draws what a command printed: python example.py | python scripts/picture.py docs/images/example.svg"""

import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text


def main() -> None:
    """Read the text from standard input and write the picture."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=96, file=nowhere)
        console.print(Text(sys.stdin.read().strip("\n")))
    drawn = console.export_svg(title="python example.py", theme=MONOKAI)
    # The reader's own monospaced font will do; a picture should not fetch one from elsewhere.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    drawn = drawn.replace("Fira Code, monospace", "monospace").replace("arial", "sans-serif")
    Path(sys.argv[1]).write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
