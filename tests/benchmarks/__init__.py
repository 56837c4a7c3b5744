"""Figures of reviewgen beside what else a user could run; ``make bench``."""
