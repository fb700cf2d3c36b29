"""The HTTP face of the server: the contract as JSON, and whether it is well.

It stands on `rpc`, whose messages it speaks and which knows nothing of it.
"""
