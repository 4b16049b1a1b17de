"""Scripts of the studies as modules."""

import importlib.util
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(name="script")
def make_script(monkeypatch):
    """(study, file) -> the module, beside the modules of its own study only."""

    def load(study, file):
        monkeypatch.syspath_prepend(EXPERIMENTS / study)
        spec = importlib.util.spec_from_file_location(f"{study}-{file}", EXPERIMENTS / study / f"{file}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for name, module in list(sys.modules.items()):
        ours = EXPERIMENTS in Path(getattr(module, "__file__", None) or "").parents
        if ours and not name.startswith("_study"):
            del sys.modules[name]
