"""Rules that learn from what a random change does to the cost."""

__all__: list[str] = []
