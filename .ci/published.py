"""A hook of mkdocs: files outside of docs/ that its pages link are published with them.

A page links them by their place in the repository, `../results/demo/figure.png`, so that the links also work where the
sources are read; on the site they lie below its root.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./((?:results|examples)/[\w/.-]+\.(?:png|gif|py|ipynb))\)")


def on_files(files: Any, config: Any) -> Any:
    """Add what is linked."""
    linked = {path for page in files.documentation_pages() for path in LINK.findall(page.content_string)}
    for path in sorted(linked):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link them where they are published."""
    return LINK.sub(r"](\1)", markdown)
