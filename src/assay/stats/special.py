"""Special functions, loaded at first use.

`scipy.special` drags in about 0.3 s of modules that statistics never touch, so importing `assay.stats` does
not import it: the first attribute looked up here does, and the function found stays in this module's
namespace, where later calls reach it at the price of a plain attribute. `scalar_*` names are the same
functions without the array machinery (`scipy.special.cython_special`), about three times faster on single
floats.
"""

from typing import Any

_SCALAR = "scalar_"


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    # Deferred on purpose: see the module's docstring.
    if name.startswith(_SCALAR):
        from scipy.special import cython_special  # noqa: PLC0415

        found = getattr(cython_special, name.removeprefix(_SCALAR))
    else:
        import scipy.special  # noqa: PLC0415

        found = getattr(scipy.special, name)
    globals()[name] = found
    return found
