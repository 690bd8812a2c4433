"""The process behind `OpenAIPool`: reads texts from standard input, writes ids to standard output."""

import json
import os
import signal
import sys
import traceback

# spaCy's dependencies import these if they can, which takes seconds and memory; tokenising needs none of
# them.
_UNNEEDED = ("torch", "tensorflow", "cupy", "mxnet", "jax")


def main() -> None:
    """Serves one parent until it closes the pipe. Interrupts from the terminal are left to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in _UNNEEDED:
        sys.modules[name] = None  # type: ignore[assignment]
    from bert_keras.text.openai_pool import read_message, write_message
    from bert_keras.text.openai_tokenizer import OpenAITokenizer

    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(
        sys.stderr.fileno(), sys.stdout.fileno()
    )  # Whatever a library prints must not end up among the ids.
    requests = sys.stdin.buffer
    setup = read_message(requests)
    if setup is None:
        return
    tokenizer = OpenAITokenizer(**json.loads(setup))
    while (request := read_message(requests)) is not None:
        try:
            ids, lengths = tokenizer(json.loads(request))
            reply = b"+" + lengths.tobytes() + ids.tobytes()
        except (ValueError, TypeError, RuntimeError, MemoryError, LookupError):
            reply = b"-" + traceback.format_exc().encode()
        write_message(replies, reply)


if __name__ == "__main__":
    main()
