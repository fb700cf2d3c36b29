"""What the server does: coalescing, claims, settlements and maintenance, over any store and any wire."""
