"""Programs of the check, which run once, are compiled with options that this JAX knows."""

import jax
import pytest

from gradweave.core.check.places import fast_options


def test_the_options_are_known() -> None:
    assert float(jax.jit(lambda x: 2 * x).lower(1.0).compile(compiler_options=fast_options())(3.0)) == 6


@pytest.mark.parametrize(("version", "told"), [((0, 10, 2), True), ((0, 11, 0), False), ((0, 11, 2), False)])
def test_an_option_that_newer_jax_refuses_is_left_out(
    version: tuple[int, ...], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "__version_info__", version)
    assert ("xla_cpu_use_fusion_emitters" in fast_options()) is told
