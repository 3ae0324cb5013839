"""Guest memory: word kernels, dirty and private maps, memslots, RAMBlocks, their join, the sync.

Imports nothing by itself, so that naming a memslot does not load numpy.
"""
