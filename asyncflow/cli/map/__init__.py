"""`asyncflow map`: a prompt over the rows of a file, answers beside them in another.

`command` declares the options, `run` goes from a `Job` to an exit code; reading is in `rows*`, looking at the
whole input beforehand in `scan`, writing in `output` and `sinks`.
"""
