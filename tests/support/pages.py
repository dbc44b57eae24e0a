"""The Python examples of pages, as modules: what they define, without what they start."""

import ast
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
README = _ROOT / "README.md"
API = _ROOT / "docs/api.md"


def example(page: Path) -> dict[str, Any]:
    """The names of a page's one example; it must define `main` and end by starting it."""
    (text,) = [part.partition("```")[0] for part in page.read_text().split("```python\n")[1:]]
    module = ast.parse(text)
    assert ast.unparse(module.body.pop()).endswith("asyncio.run(main())")
    names: dict[str, Any] = {"__name__": page.stem}
    exec(compile(module, page.name, "exec"), names)
    return names
