"""How it runs: one small file per library folder, same name, with retries, tags, batches and artifacts.

Imported as `chipmill.tasks`. No logic lives here: every task calls one function of the library.
"""
