"""How fast it is, in figures that anybody can repeat: `make bench`, or `python -m benchmarks --help`."""
