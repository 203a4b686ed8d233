"""`asyncflow run file.py:flow`: a flow from a file, stored, so that the same command goes on with it.

command   the options
target    from `file.py:flow` to the flow
shared    what the flow is given
perform   from all that to an exit code
report    what is said of it
"""
