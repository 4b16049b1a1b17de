"""Turn the percent scripts of this folder into notebooks, and write the page of the documentation that links them.

    python examples/tutorials/make_notebooks.py          (make notebooks)

A cell begins with a line `# %%`, and one of text with `# %% [markdown]`. Notebooks are written without outputs and with
stable cell numbers, so that they change only where their scripts do.
"""

import json
import re
from pathlib import Path

REPOSITORY = "OWNER/gradweave"  # the only place that says whose; for whoever publishes it
PATH = ("five_minutes", "first_agent", "is_it_any_good", "my_own_loop", "my_own_environment", "add_an_estimator")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSTALL = f"""try:
    import gradweave
except ImportError:
    %pip install --quiet "gradweave @ git+https://github.com/{REPOSITORY}"
"""


def cells(script: str) -> list[tuple[str, str]]:
    """(kind, text) of every cell of a percent script."""
    found = []
    for part in re.split(r"^# %%", script, flags=re.MULTILINE)[1:]:
        marker, _, body = part.partition("\n")
        if marker.strip() == "[markdown]":
            found.append(("markdown", re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)))
        else:
            found.append(("code", body.strip()))
    return found


def colab(name: str, label: str) -> str:
    """A link that opens a notebook in Colab."""
    return f"[{label}](https://colab.research.google.com/github/{REPOSITORY}/blob/main/examples/tutorials/{name}.ipynb)"


def notebook(name: str) -> str:
    """The notebook of a script as JSON (nbformat 4.5)."""
    parts = cells((HERE / f"{name}.py").read_text(encoding="utf-8"))
    badge = colab(name, "![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)")
    parts[0] = ("markdown", f"{parts[0][1]}\n\n{badge}")
    parts.insert(1, ("code", INSTALL.strip()))
    entries = []
    for number, (kind, text) in enumerate(parts):
        entry = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        entries.append(entry | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": entries, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """The page of the documentation: title, first paragraph and links of each step."""
    lines = [
        "# A path in six steps",
        "",
        "Short scripts that run as they stand, in a minute or less each, also as notebooks. Each checks its claims.",
        "",
    ]
    for number, name in enumerate(PATH, 1):
        title, _, text = cells((HERE / f"{name}.py").read_text(encoding="utf-8"))[0][1].partition("\n")
        folder = "../examples/tutorials"
        links = f"[Script]({folder}/{name}.py) · [notebook]({folder}/{name}.ipynb) · {colab(name, 'open in Colab')}"
        lines += [f"## {number}. {title.removeprefix('# ')}", "", text.strip(), "", links, ""]
    return "\n".join(lines)


def written() -> dict[Path, str]:
    """Everything that is made here, by its file."""
    made = {HERE / f"{name}.ipynb": notebook(name) for name in PATH}
    return made | {ROOT / "docs" / "tutorials.md": page()}


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
