"""Finding a root in a bracket, without the quarter of a second that importing an optimiser takes."""

from collections.abc import Callable


def find_root(
    function: Callable[[float], float], low: float, high: float, *, tolerance: float = 1e-14, steps: int = 200
) -> float:
    """A root of a continuous function between `low` and `high`, where its signs must differ.

    Inverse quadratic interpolation with bisection as the fallback, by the criterion of Chandrupatla (1997),
    Advances in Engineering Software 28. `tolerance` is relative to the root, with an absolute floor of
    1e-300.
    """
    b, a = low, high
    fb, fa = function(b), function(a)
    if fb == 0.0:
        return b
    if fa == 0.0:
        return a
    if (fa > 0.0) == (fb > 0.0):
        raise ValueError(f"no change of sign between {low} and {high}")
    share = 0.5
    for _ in range(steps):
        x = a + share * (b - a)
        fx = function(x)
        if (fx > 0.0) == (fa > 0.0):
            c, fc = a, fa
        else:
            c, b, fc, fb = b, a, fb, fa
        a, fa = x, fx
        best = a if abs(fa) < abs(fb) else b
        limit = (2.0 * tolerance * abs(best) + 1e-300) / max(abs(b - a), 1e-300)
        if limit > 0.5 or fa == 0.0:
            return best
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        if phi * phi < xi and (1.0 - phi) ** 2 < 1.0 - xi:
            share = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
            share = min(max(share, limit), 1.0 - limit)
        else:
            share = 0.5
    return best
