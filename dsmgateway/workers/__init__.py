"""The gateway as several processes that share its ports and its data folder (setting ``workers``).

`supervisor` is the process that twistd has started; `child` is each of the others. How they share the work is told in
docs/architecture.md.
"""
