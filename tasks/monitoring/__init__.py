"""What is measured of a batch, and who is alerted."""
