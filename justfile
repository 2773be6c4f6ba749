# Recipes run in the active environment, or else in the checkout's own, which `just setup` makes.
export PATH := env("VIRTUAL_ENV", justfile_directory() / ".venv") / "bin:" + env("PATH")

# What can be done here
default:
    @just --list --unsorted

# Make .venv from the pins, with the package linked in
setup:
    uv venv --quiet --allow-existing .venv
    uv pip sync --quiet --python .venv --require-hashes requirements.lock
    uv pip install --quiet --python .venv --no-deps --no-build-isolation --editable .

# Say what is wrong; change nothing
check:
    ruff check .
    ruff format --check .
    mypy
    lint-imports
    python scripts/house_rules.py

# Repair what can be repaired by itself
fix:
    ruff check --fix .
    ruff format .

# Run the tests on the checkout, or some: just test tests/stats -k welch
test *arguments:
    pytest {{ arguments }}

# Everything a change must pass, as the build machine does it
ci *arguments:
    scripts/test {{ arguments }}

# Run one benchmark, or all
bench *names:
    python -m benchmarks {{ names }}

# Serve the checkout
serve *arguments:
    assay serve {{ arguments }}

# Check the container files; --build makes their stages in directory trees, without an engine
containers *arguments:
    python scripts/check_containers.py {{ arguments }}

# Start with a simulated experiment to look at
demo *arguments:
    assay demo {{ arguments }}

# Write the generated reference pages anew
docs:
    python scripts/reference.py

# Pin the dependencies again; --upgrade takes newer ones
lock *arguments:
    scripts/lock {{ arguments }}
