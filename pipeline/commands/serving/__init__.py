"""The commands that ask a model server, check one, or start the front end."""
