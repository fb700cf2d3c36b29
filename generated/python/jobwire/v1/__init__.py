"""The contract as Python: messages in `*_pb2`, stubs and servicer bases in `*_service_pb2_grpc`.

Nothing is re-exported: importing messages must not import grpc, and each name has one home, the proto file that
defines it, as in `from jobwire.v1.job_pb2 import Job`.
"""
