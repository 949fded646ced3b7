"""core: what every room stands on - errors, file names, table schemas, the store and its commit protocol.

No pixel, no network, no orchestrator: this room knows files, hashes and locks, nothing of imagery.
"""
