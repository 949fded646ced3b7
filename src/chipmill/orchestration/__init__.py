"""orchestration: how stages are driven - server, cluster, stages, retries; no pixel logic.

The only library room that imports Prefect and distributed, and it does so inside the modules that need them: `run`,
which the command line calls, finds out that there is nothing to do without either. To change how failed units are
tried again, see `stage`; which errors a task retries, `retry`; where the cluster comes from, `cluster`; where the
workflow server comes from, `server`; which environment variables there are, `settings`.
"""
