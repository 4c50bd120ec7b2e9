"""The protocols of the front end: its own REST API, and TensorFlow Serving's REST and gRPC."""
