"""The command line. Help loads only click: torch, mlflow and rich load when they are used."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from .. import __version__, session
from . import completion, doctor, new, owner, plugins, process, results, run, store

_HOW_TO_GO_ON = "what is finished is kept, and the same command goes on from there"


class _Group(click.Group):
    """A group that shows every expected error as one sentence, with the exit code of its kind."""

    def invoke(self, ctx: click.Context) -> Any:
        from ..api.errors import FpbenchError, did_you_mean, printable

        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if isinstance(error, click.exceptions.NoSuchCommand):
                raise click.UsageError(
                    f"no command {error.command_name!r}; "
                    f"{did_you_mean(str(error.command_name), self.commands)}"
                ) from None
            raise
        except FpbenchError as error:
            click.echo(f"error: {printable(str(error), also='')}", err=True)
            ctx.exit(error.exit_code)
        except (OSError, MemoryError, RuntimeError) as error:
            from ..engine.resources import shortage

            reason = str(error) if isinstance(error, PermissionError) else shortage(error)
            if not reason:
                raise
            click.echo(f"error: {reason}; {_HOW_TO_GO_ON}", err=True)
            ctx.exit(3)
        except KeyboardInterrupt as error:
            click.echo(f"\n{process.STOPPED}", err=True)
            ctx.exit(getattr(error, "exit_code", 130))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fpbench")
def main() -> None:
    """Benchmark neural network fingerprinting: which method recognises stolen models?

    Start with: fpbench run suites/quickstart.yaml
    """
    # A terminal that cannot show a character gets its escape sequence.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    session.log_to_stderr()


for _file in (run, plugins, new, results, store, owner, doctor, completion):
    for _command in _file.COMMANDS:
        main.add_command(_command)
