"""A finished run as something to read: a web page, or a table for a paper."""
