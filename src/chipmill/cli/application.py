"""The application that the commands belong to. The file to change for what holds for all of them.

Exit codes: 0 done, 1 failed, 2 bad input, 3 finished with failed units; `verify`: 0 good, 1 bad, 10 not a dataset,
11 locked. Heavy imports stand inside the commands: `chipmill --help` must answer at once.
"""

import typer

_HELP = """From satellite archives to chips, a trained segmentation model and a map.

A region file says where, when and from what. Begin with `chipmill demo`, or with `chipmill init NAME` and
`chipmill plan NAME.yaml`; `chipmill run NAME.yaml` then makes what is missing, and only that.
"""

app = typer.Typer(
    name="chipmill",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # the traceback of a defect is shown as it is
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _keep_secrets() -> None:
    from chipmill.core.redact import install

    install()
