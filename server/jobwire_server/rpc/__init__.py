"""The gRPC face of the services: servicers, conversion, status codes and interceptors."""
