"""What computes the scores of the front end: the network in this process, or TensorFlow Serving."""
