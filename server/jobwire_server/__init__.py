"""The jobwire server: domain, stores, services and their gRPC face, joined in app.py."""
