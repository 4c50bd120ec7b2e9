"""The readers of each file format other than CSV and TSV."""
