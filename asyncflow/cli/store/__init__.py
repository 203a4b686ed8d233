"""What the commands around stored runs share.

reading   a store opened for looking; which run is meant, and how it stands
holding   a store held for writing by a whole command
named     runs that are found again by what was asked
items     a run's records as rows, for people and for files
shown     moments, amounts and tables as text
ending    from errors to exit codes
"""
