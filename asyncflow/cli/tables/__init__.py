"""Rows in files: JSON lines, CSV and Parquet, written with flat memory by whatever command has rows.

formats   which format is it, by suffix; a value as a cell
values    values as JSON and as text
sinks     the writers, one a format
whole     a file that is there whole or not at all
"""
