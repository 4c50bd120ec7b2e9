"""Raw message → tokens → ids, the same in training, in a batch and in the exported SavedModel."""
