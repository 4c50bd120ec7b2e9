"""Selects messages of past nights that a teacher's opinions make weakly labelled training messages."""
