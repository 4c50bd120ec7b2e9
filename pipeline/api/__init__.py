"""The front end: answers messages over HTTP and gRPC with the model version in service."""
