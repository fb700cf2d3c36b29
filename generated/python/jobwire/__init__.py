"""What protoc makes of `protos/jobwire`. Only this file, `v1/__init__.py` and `py.typed` are written by hand."""
