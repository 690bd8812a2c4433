"""The command line, `bert-keras`."""

from bert_keras.cli.app import app, main

__all__ = ["app", "main"]
