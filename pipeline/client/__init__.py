"""Clients of model servers: TensorFlow Serving and the front end, over gRPC and REST."""
