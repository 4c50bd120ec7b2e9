"""The Keras model, its weights, the devices it runs on, and its export."""
