"""One module a version of the schema, oldest first. A version that was released is never edited."""
