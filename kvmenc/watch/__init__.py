"""Watching a running QEMU: its dirty log read without taking a bit, as a capture."""
