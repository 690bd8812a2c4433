"""The command line, called from tests."""

from typer.testing import CliRunner

from bert_keras.cli import app


def invoke(*arguments, code=0, text=None):
    """Run `bert-keras` in this process and return what came, with its exit code as expected."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result
