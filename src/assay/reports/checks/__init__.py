"""The checks of a report's health, by what they look at."""
