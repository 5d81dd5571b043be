"""The local app: rows, traces, values and evaluations as pages; questions to a model; all of it as JSON and static files.

`headwater view RUNS...` starts it, `headwater.view(trace)` shows a trace from Python. It reads what other commands
wrote and calls the public functions; it computes no scores of its own.
"""
