"""What the commands compute; printing is left to `pipeline.commands`."""
