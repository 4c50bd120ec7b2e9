"""Contains one module per version of the schema. What a released migration does is never changed."""
