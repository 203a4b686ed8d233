"""The doors: they wire the rooms together and hold no logic of their own.

items   `amap` and `stream`, for people who want no graph
flows   `run` and `run_sync`, for flows
stored  what all of them do where a `store` is given
"""
