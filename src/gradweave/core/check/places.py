"""Places where a learner can break: operations in its traced code known for it, with their source lines.

Two ways of looking. The code itself shows loops, stopped derivatives and rules of one's own. And a run on the given
data shows which roots, logarithms and quotients were taken at a point where their derivative is infinite.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn

from gradweave.core.jaxprs import as_function, equations, evaluate
from gradweave.core.optimizers.safe_rules import singular_operands

__all__ = ["Place", "met_singularities", "place_of", "written_places"]

_SINGULAR = ("sqrt", "rsqrt", "cbrt", "log", "log1p", "pow", "integer_pow", "div", "atan2")
"""Operations whose derivative is infinite at a finite point that a program commonly meets."""

_LIBRARIES = ("jax", "optax", "flax", "equinox", "gradweave", "jaxtyping", "beartype", "haiku", "chex")
_STANDARD = ("/contextlib.py", "/functools.py")
_INSIDE = ("/jax/_src/nn/", "/jax/_src/ops/", "/jax/_src/scipy/", "/jax/_src/random.py")


class Place(NamedTuple):
    """A source line, and the library function between it and JAX.

    Attributes:
        line: "file.py:12", of the user's own code where there is some.
        through: the innermost function of another library, such as "optax scale_by_adam"; "" for none.
    """

    line: str
    through: str

    def __str__(self) -> str:
        return f"{self.line} ({self.through})" if self.through else self.line


class Met(NamedTuple):
    """An operation that was evaluated where its derivative is infinite.

    Attributes:
        operation: the primitive, "sqrt" for instance.
        place: its source line.
        in_optimizer: whether an optax optimiser made it.
    """

    operation: str
    place: Place
    in_optimizer: bool


def place_of(equation: JaxprEqn) -> Place:
    """The source line of an equation, as far as its traceback has it."""
    through = ""
    for frame in _frames(equation):  # the innermost first
        name = frame.file_name.replace("\\", "/")
        library = _library_of(name)
        if library is None and not name.startswith("<") and not name.endswith(_STANDARD):
            return Place(f"{name.rsplit('/', 1)[-1]}:{frame.line_num}", through)
        if library not in (None, "jax", "gradweave") and not through:
            through = f"{library} {frame.function_name.split('.')[0]}"
    return Place("unknown line", through)


def _library_of(file: str) -> str | None:
    """The library that a file belongs to, by where that was imported from: a user's folder may be called like one."""
    for name in _LIBRARIES:
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is not None and file.startswith(os.path.dirname(origin).replace("\\", "/") + "/"):
            return name
    return None


def written_places(closed: ClosedJaxpr, name: str, opaque: frozenset[str] = frozenset()) -> list[Place]:
    """The lines on which a primitive of this name is written, once each; not those that JAX's own functions are made of
    (the shift by the maximum in a softmax stops a derivative, rightly), nor `Fixed`, which is declared to stop one.
    """
    found = [
        place_of(equation)
        for equation in equations(closed, opaque=opaque)
        if equation.primitive.name == name
        and not any(part in frame for frame in _files(equation) for part in _INSIDE)
        and not _of_fixed(equation)
    ]
    return list(dict.fromkeys(found))


def _of_fixed(equation: JaxprEqn) -> bool:
    """Whether `Fixed.forward` itself stops the derivative: its frame is the innermost one outside of JAX."""
    outside = (file for file in _files(equation) if _library_of(file) != "jax")
    return next(outside, "").endswith("/gradweave/core/bijectors.py")


def _frames(equation: JaxprEqn) -> list[Any]:
    return getattr(getattr(equation.source_info, "traceback", None), "frames", None) or []


def _files(equation: JaxprEqn) -> list[str]:
    return [frame.file_name.replace("\\", "/") for frame in _frames(equation)]


def met_singularities(closed: ClosedJaxpr, inputs: list[Any]) -> list[Met]:
    """Run a traced function on data and return the operations whose derivative was infinite somewhere.

    Args:
        closed: the function, as `jax.make_jaxpr` gives it.
        inputs: its arguments, flat.
    """
    known: list[JaxprEqn] = []
    met: dict[int, None] = {}

    def note(index: int, bad: Any) -> None:
        if bad:
            met[index] = None

    def watched(equation: JaxprEqn, *given: Any) -> list[Any] | None:
        operands = singular_operands(equation)
        if not operands or (equation.primitive.name == "integer_pow" and equation.params["y"] > 0):
            return None
        index = len(known)
        known.append(equation)
        call = as_function(equation)
        bad = functools.reduce(jnp.logical_or, [_is_infinite(call, place, given) for place in operands])
        jax.debug.callback(functools.partial(note, index), bad)
        return call(*given)

    rules = dict.fromkeys(_SINGULAR, watched)
    # Compiled with little effort: it runs once.
    program = jax.jit(lambda *given: evaluate(closed, rules, list(given))).lower(*inputs)
    with jax.debug_nans(False):
        jax.block_until_ready(program.compile(compiler_options=fast_options())(*inputs))
        jax.effects_barrier()
    found = [Met(known[i].primitive.name, place_of(known[i]), _in_optimizer(known[i])) for i in sorted(met)]
    return list(dict.fromkeys(found))


def fast_options() -> dict[str, Any]:
    """Options that make XLA compile quickly on CPUs, for programs run once."""
    if jax.default_backend() != "cpu":
        return {}
    options = {
        "xla_backend_optimization_level": 0,
        "xla_cpu_parallel_codegen_split_count": 1,  # one module for LLVM: splitting it costs more than it saves
    }
    # From JAX 0.11 on there is one way to fuse, and naming the other is an error.
    return options if jax.__version_info__ >= (0, 11) else {**options, "xla_cpu_use_fusion_emitters": False}


def _is_infinite(call: Callable[..., list[Any]], place: int, given: tuple[Any, ...]) -> Any:
    def moved(operand: Any) -> Any:
        return call(*given[:place], operand, *given[place + 1 :])[0]

    slope = jax.jvp(moved, (given[place],), (jnp.ones_like(given[place]),))[1]
    return ~jnp.isfinite(slope).all()


def _in_optimizer(equation: JaxprEqn) -> bool:
    return any("/optax/" in file for file in _files(equation))
