"""Purchased embeddings: the store, the ledger, the budget, and the purchase itself."""
