"""Where jobs are kept: `base.py` says what a store promises, each folder beside it keeps that promise on one engine."""
