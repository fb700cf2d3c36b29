"""The demo, `make demo`: jobs of many kinds, and workers that are killed and redeployed while they run them.

| File | What it holds |
|---|---|
| `__main__.py` | options, signals, the exit code |
| `kinds.py` | the kinds of jobs, and how each has to end |
| `worker.py` | a worker process: a handler for each kind |
| `story.py` | what happens: servers, crew, producer, faults, the end |
| `crew.py` | the workers, and what is done to them |
| `watch.py` | what the server says, again and again; faults wait for it |
| `verdict.py` | was anything lost, was anything completed twice? |
| `ledger.py` | the file in which workers note what they did |
| `store.py` | a store of the demo's own, and nothing left of it |
| `processes.py`, `child.py` | child processes that never outlive the demo |
| `screen.py` | what a person sees |
"""
