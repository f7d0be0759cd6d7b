"""How much of the machine the endpoint keeps busy: workloads, load, limits, and a report.

`python -m bench` from the repository's root; README.md in this folder says how to read what it prints.
"""
