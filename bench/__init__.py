"""Measurements: what the server costs, with the commands that measured it."""
