"""The guarantee: private values, mechanisms, accounting, the ledger and what may be claimed.

Imports nothing else of privolve, no torch and no HTTP client.
"""
