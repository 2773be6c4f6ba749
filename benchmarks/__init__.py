"""How fast, as ratios measured in one run: `python -m benchmarks`, or `python -m benchmarks repeat report`.

Each benchmark starts its own servers on loopback, keeps server and load on different cores, warms up, lets
the contestants take turns, checks the content of every answer, and prints one table. No benchmark fails on
time: a shared machine is too noisy for that, and a wrong answer is the only failure there is.
"""
