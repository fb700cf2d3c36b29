"""How jobwire compares: itself and its peers at the same work, in turns: `make bench-peers`."""
