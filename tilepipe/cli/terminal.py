"""A rich console for bars and tables that show text of unknown origin."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from tilepipe.cli.guard import Guard
from tilepipe.text import printable


class Terminal(Console):
    """A rich console that prints plain text: no markup, no control characters.

    Parameters
    ----------
    stderr
        Write to standard error.
    **options
        Of `rich.console.Console`.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        stream = sys.stderr if stderr else sys.stdout
        file = stream.as_it_is() if isinstance(stream, Guard) else stream
        settings = {"highlight": False, "markup": False, "emoji": False, **options}
        super().__init__(file=cast(Any, file), **settings)

    def render_str(self, text: str, **options: Any) -> Text:
        """Render text as it will be shown, which determines the width of a cell."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render; control characters in text are escaped."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
