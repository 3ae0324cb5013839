"""What a QEMU says of its guest's memory: over QMP, or in text saved from it.

Imports nothing by itself: neither numpy nor the QMP library is wanted by every caller.
"""
